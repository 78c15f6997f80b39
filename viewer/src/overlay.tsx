/** What stands in the corners and at the edges of the image. */

import type { StackView } from './cornerstone';
import { formatDate, formatName, formatTime, Tag, text } from './dicom_json';
import type { Study } from './study';

export function Overlay({ study, view }: { study: Study; view: StackView }) {
  return (
    <div class="overlay">
      <Patient study={study} />
      <Series study={study} />
      {study.video.value === null && (
        <>
          <Position study={study} view={view} />
          <Display view={view} />
          <EdgeLetters view={view} />
        </>
      )}
    </div>
  );
}

function Patient({ study }: { study: Study }) {
  const value = (tag: string) => text(study.attributes.value, tag);
  const born = [value(Tag.patientSex), formatDate(value(Tag.patientBirthDate))];
  return (
    <div class="corner top left">
      <b>{formatName(value(Tag.patientName))}</b>
      <span>{value(Tag.patientID)}</span>
      <span>{born.filter(Boolean).join(' · ')}</span>
    </div>
  );
}

function Series({ study }: { study: Study }) {
  const { series } = study;
  const value = (tag: string) => text(study.attributes.value, tag);
  const number = text(series, Tag.seriesNumber);
  return (
    <div class="corner top right">
      <span>{value(Tag.studyDescription)}</span>
      <span>
        {formatDate(value(Tag.studyDate))} {formatTime(value(Tag.studyTime))}
      </span>
      <span>
        {[text(series, Tag.modality), number && `series ${number}`].filter(Boolean).join(' ')}
      </span>
      <span>{text(series, Tag.seriesDescription)}</span>
    </div>
  );
}

function Position({ study, view }: { study: Study; view: StackView }) {
  const { index, count, loaded, drawn, problem, preview } = view.state.value;
  if (!count) return null;
  return (
    <div class="corner bottom left">
      {study.remark.value && <span>{study.remark.value}</span>}
      {preview && <span>coarse preview</span>}
      {!drawn && !problem && <span class="late">loading…</span>}
      {loaded < count && <span>{`${loaded} of ${count} loaded`}</span>}
      <span data-test="position">{`Image ${index + 1} / ${count}`}</span>
    </div>
  );
}

function Display({ view }: { view: StackView }) {
  const { window, zoom, invert, count } = view.state.value;
  if (!count) return null;
  return (
    <div class="corner bottom right">
      {invert && <span>inverted</span>}
      <span data-test="zoom">{`Zoom ${Math.round(zoom * 100)} %`}</span>
      {window && (
        <span data-test="window">{`W ${rounded(window.width)}  L ${rounded(window.center)}`}</span>
      )}
    </div>
  );
}

/** Whole numbers, unless the window is so narrow that they would say nothing. */
function rounded(value: number): string {
  return Math.abs(value) < 10 && !Number.isInteger(value) ? value.toFixed(2) : value.toFixed(0);
}

function EdgeLetters({ view }: { view: StackView }) {
  const { edges } = view.state.value;
  if (!edges) return null;
  return (
    <>
      {(['top', 'right', 'bottom', 'left'] as const).map((side) => (
        <span key={side} class={`edge ${side}`}>
          {edges[side]}
        </span>
      ))}
    </>
  );
}
