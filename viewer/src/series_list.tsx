/** The series of the study, each with a picture of its middle. */

import { useEffect, useRef, useState } from 'preact/hooks';
import { count, type DicomObject, number, Tag, text } from './dicom_json';
import { PlayIcon, UnseenIcon } from './icons';
import { go, studyLink } from './route';
import { imageless, type Study, seriesUID } from './study';
import { drawThumbnail } from './thumbnail';

export function SeriesList({ study }: { study: Study }) {
  const list = study.seriesList.value;
  return (
    <nav class="series" aria-label="Series">
      {list?.map((series) => (
        <Entry
          key={seriesUID(series)}
          study={study}
          series={series}
          selected={seriesUID(series) === study.selected.value}
        />
      ))}
    </nav>
  );
}

interface EntryProperties {
  study: Study;
  series: DicomObject;
  selected: boolean;
}

function Entry({ study, series, selected }: EntryProperties) {
  const uid = seriesUID(series);
  const link = useRef<HTMLAnchorElement>(null);
  useEffect(() => {
    if (selected) link.current?.scrollIntoView({ block: 'nearest', inline: 'nearest' });
  }, [selected]);
  const modality = text(series, Tag.modality);
  const seriesNumber = text(series, Tag.seriesNumber);
  const amount = number(series, Tag.numberOfSeriesRelatedInstances);
  return (
    <a
      ref={link}
      href={studyLink(study.uid, uid)}
      aria-current={selected}
      onClick={(event) => {
        // Choosing another series is no step for the back button: that leads to the study list.
        if (event.ctrlKey || event.metaKey || event.shiftKey) return;
        event.preventDefault();
        go(studyLink(study.uid, uid), true);
      }}
    >
      <Thumbnail study={study} uid={uid} modality={modality} />
      <span class="caption">
        <b>{text(series, Tag.seriesDescription) || 'No description'}</b>
        <span class="dim">
          <span class="chip">{modality}</span>
          {seriesNumber}
        </span>
        <span class="dim">{count(amount, imageless.has(modality) ? 'object' : 'image')}</span>
      </span>
    </a>
  );
}

/** A picture, or what there is instead of one and why. */
interface Shown {
  instead?: 'video' | 'nothing';
  title: string;
}

function Thumbnail({ study, uid, modality }: { study: Study; uid: string; modality: string }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [shown, setShown] = useState<Shown | null>(null);
  const stack = study.view.value;
  useEffect(() => {
    const { current } = canvas;
    if (!current || !stack) return undefined;
    return whenSeen(current, async () => setShown(await draw(study, uid, current)));
  }, [study, uid, stack]);
  const drawn = shown !== null && !shown.instead;
  return (
    <span class="thumbnail" title={shown?.title || undefined}>
      {!drawn && (
        <span class="dim instead">
          {shown?.instead === 'video' && <PlayIcon />}
          {shown?.instead === 'nothing' && <UnseenIcon />}
          {modality}
        </span>
      )}
      <canvas ref={canvas} width={112} height={112} hidden={!drawn} />
    </span>
  );
}

/** Runs once the element comes into sight, and the image in view has had its turn. */
function whenSeen(element: HTMLElement, run: () => Promise<void>): () => void {
  const observer = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    setTimeout(() => void run(), 300);
  });
  observer.observe(element.parentElement ?? element);
  return () => observer.disconnect();
}

/** Draws the frame in the middle, if there is one that can be had. */
async function draw(study: Study, uid: string, canvas: HTMLCanvasElement): Promise<Shown> {
  try {
    const { frames, videos, remark } = await study.images(uid);
    const middle = frames[frames.length >> 1];
    if (!middle && videos.length) return { instead: 'video', title: count(videos.length, 'video') };
    if (!middle) return { instead: 'nothing', title: remark };
    const { loadPicture } = await import('./cornerstone');
    drawThumbnail(await loadPicture(middle), canvas);
    return { title: '' };
  } catch (failure) {
    return { instead: 'nothing', title: (failure as Error).message };
  }
}
