/** The study list: filter, table, paging, and what to do when there is nothing to list. */

import { useEffect, useRef } from 'preact/hooks';
import {
  count,
  type DicomObject,
  formatDate,
  formatName,
  formatTime,
  Tag,
  text,
  texts,
} from './dicom_json';
import { Logo, StatisticsIcon } from './icons';
import { preloadImageChunks } from './preload';
import { go, statisticsLink, studiesLink, studyLink } from './route';
import {
  arrived,
  type Field,
  failure,
  fields,
  follow,
  images,
  matching,
  more,
  offset,
  pageSize,
  studies,
  uid,
} from './worklist';

const labels: Record<Field, string> = {
  PatientName: 'Patient name',
  PatientID: 'Patient ID',
  StudyDate: 'Study date',
  ModalitiesInStudy: 'Modality',
  StudyDescription: 'Description',
  AccessionNumber: 'Accession',
};
const modalities = [
  'CR',
  'CT',
  'DX',
  'MG',
  'MR',
  'NM',
  'OT',
  'PT',
  'RF',
  'SC',
  'SM',
  'SR',
  'US',
  'XA',
];

export function Worklist({ filter }: { filter: URLSearchParams }) {
  const key = filter.toString();
  useEffect(() => follow(filter), [key]);
  useEffect(() => {
    document.title = 'wado';
    addEventListener('keydown', onKey);
    return () => removeEventListener('keydown', onKey);
  }, []);
  return (
    <div class="worklist">
      <header class="bar">
        <Logo />
        <Summary />
        <span class="grow" />
        <a class="aside" href={statisticsLink} title="Conversions between transfer syntaxes">
          <StatisticsIcon />
          Conversions
        </a>
      </header>
      <Filter filter={filter} />
      {failure.value && (
        <p class="alarm" role="alert">
          {failure.value} Trying again…
        </p>
      )}
      <main class="table">
        <Table filter={filter} />
      </main>
      <Paging filter={filter} />
    </div>
  );
}

function Summary() {
  const list = studies.value;
  if (!list) return <span class="dim">{failure.value ? '' : 'Asking the archive…'}</span>;
  const studyCount = more.value ? `${list.length}+ studies` : studiesText(list.length);
  return (
    <span class="dim" role="status">
      {studyCount}, {count(images.value, 'image')}
    </span>
  );
}

const studiesText = (amount: number) => (amount === 1 ? '1 study' : `${amount} studies`);

function Filter({ filter }: { filter: URLSearchParams }) {
  const change = (field: Field, value: string) => {
    const next = new URLSearchParams(filter);
    next.delete('offset');
    if (value.trim()) next.set(field, value.trim());
    else next.delete(field);
    go(studiesLink(next), true);
  };
  const clear = () => go(studiesLink(new URLSearchParams()), true);
  return (
    <form class="filter" aria-label="Filter" onSubmit={(event) => event.preventDefault()}>
      {fields.map((field) => (
        <FilterField key={field} field={field} value={filter.get(field) ?? ''} change={change} />
      ))}
      <button type="button" class="quiet" onClick={clear} disabled={!matching(filter).length}>
        Clear
      </button>
    </form>
  );
}

interface FieldProperties {
  field: Field;
  value: string;
  change: (field: Field, value: string) => void;
}

function FilterField({ field, value, change }: FieldProperties) {
  if (field === 'StudyDate') return <DateRange value={value} change={change} />;
  if (field === 'ModalitiesInStudy') {
    return (
      <label>
        <span>{labels[field]}</span>
        <select name={field} value={value} onChange={(e) => change(field, e.currentTarget.value)}>
          <option value="">Any</option>
          {modalities.map((modality) => (
            <option key={modality}>{modality}</option>
          ))}
        </select>
      </label>
    );
  }
  return <TextField field={field} value={value} change={change} />;
}

function TextField({ field, value, change }: FieldProperties) {
  const timer = useRef(0);
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => {
    const { current } = input;
    if (current && current !== document.activeElement) current.value = value;
  }, [value]);
  const later = (typed: string) => {
    clearTimeout(timer.current);
    timer.current = window.setTimeout(() => change(field, typed), 250);
  };
  return (
    <label>
      <span>{labels[field]}</span>
      <input
        ref={input}
        type="search"
        name={field}
        defaultValue={value}
        autocomplete="off"
        spellcheck={false}
        onInput={(event) => later(event.currentTarget.value)}
      />
    </label>
  );
}

/** A range of PS3.4 C.2.2.2.5: `20260101-20260131`, either end may be open. */
function DateRange({ value, change }: Omit<FieldProperties, 'field'>) {
  const [from = '', to = ''] = value.split('-');
  const put = (start: string, end: string) => {
    const [a, b] = [start, end].map((day) => day.replaceAll('-', ''));
    change('StudyDate', a || b ? `${a}-${b}` : '');
  };
  return (
    <fieldset>
      <legend>{labels.StudyDate}</legend>
      <input
        type="date"
        aria-label="from"
        value={formatDate(from)}
        onChange={(event) => put(event.currentTarget.value, to)}
      />
      <input
        type="date"
        aria-label="to"
        value={formatDate(to)}
        onChange={(event) => put(from, event.currentTarget.value)}
      />
    </fieldset>
  );
}

function Table({ filter }: { filter: URLSearchParams }) {
  const list = studies.value;
  if (!list) return null;
  if (list.length === 0) {
    return matching(filter).length || offset(filter) ? (
      <p class="notice">No study matches this filter.</p>
    ) : (
      <EmptyArchive />
    );
  }
  return (
    <table>
      <thead>
        <tr>
          <th>Patient</th>
          <th>Patient ID</th>
          <th>Study date</th>
          <th>Modality</th>
          <th>Description</th>
          <th>Accession</th>
          <th class="number">Series</th>
          <th class="number">Images</th>
        </tr>
      </thead>
      <tbody>
        {list.map((study) => (
          <Row key={uid(study)} study={study} />
        ))}
      </tbody>
    </table>
  );
}

function Row({ study }: { study: DicomObject }) {
  const value = (tag: string) => text(study, tag);
  const born = [value(Tag.patientSex), formatDate(value(Tag.patientBirthDate))];
  return (
    <tr class={arrived.value.has(uid(study)) ? 'arrived' : ''} onMouseEnter={preloadImageChunks}>
      <td class="patient">
        <a href={studyLink(uid(study))} onFocus={preloadImageChunks}>
          {formatName(value(Tag.patientName)) || 'No name'}
        </a>
        <span class="dim">{born.filter(Boolean).join(' · ')}</span>
      </td>
      <td>{value(Tag.patientID)}</td>
      <td class="nowrap">
        {formatDate(value(Tag.studyDate))}{' '}
        <span class="dim">{formatTime(value(Tag.studyTime))}</span>
      </td>
      <td class="modality">
        {texts(study, Tag.modalitiesInStudy).map((modality) => (
          <span key={modality} class="chip">
            {modality}
          </span>
        ))}
      </td>
      <td class="description">{value(Tag.studyDescription)}</td>
      <td>{value(Tag.accessionNumber)}</td>
      <td class="number">{value(Tag.numberOfStudyRelatedSeries)}</td>
      <td class="number">{value(Tag.numberOfStudyRelatedInstances)}</td>
    </tr>
  );
}

function EmptyArchive() {
  return (
    <div class="notice">
      <h1>No images yet</h1>
      <p>The list fills by itself as soon as the first image is stored. Send some:</p>
      <pre>wado send FOLDER --to WADO@{location.hostname}:11112</pre>
      <p>
        or by C-STORE from a modality to AE title <b>WADO</b>, port <b>11112</b> (unless the archive
        was started with others), or by STOW-RS to <b>{document.baseURI.split('#')[0]}dicomweb</b>.
      </p>
    </div>
  );
}

function Paging({ filter }: { filter: URLSearchParams }) {
  const start = offset(filter);
  if (!start && !more.value) return null;
  const turn = (to: number) => {
    const next = new URLSearchParams(filter);
    if (to > 0) next.set('offset', String(to));
    else next.delete('offset');
    go(studiesLink(next));
  };
  return (
    <nav class="paging" aria-label="pages">
      <button type="button" disabled={!start} onClick={() => turn(start - pageSize)}>
        ‹ Newer
      </button>
      <span class="dim">
        {start + 1}–{start + (studies.value?.length ?? 0)}
      </span>
      <button type="button" disabled={!more.value} onClick={() => turn(start + pageSize)}>
        Older ›
      </button>
    </nav>
  );
}

/** Arrows walk the list, a slash goes to the filter, Escape leaves it. */
function onKey(event: KeyboardEvent): void {
  const inField = event.target instanceof HTMLInputElement;
  if (event.key === '/' && !inField) {
    document.querySelector<HTMLInputElement>('.filter input')?.focus();
  } else if (event.key === 'Escape' && inField) {
    (event.target as HTMLInputElement).blur();
  } else if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
    walk(event.key === 'ArrowDown' ? 1 : -1);
  } else {
    return;
  }
  event.preventDefault();
}

function walk(step: 1 | -1): void {
  const links = [...document.querySelectorAll<HTMLAnchorElement>('.table a')];
  const at = links.indexOf(document.activeElement as HTMLAnchorElement);
  links[Math.min(links.length - 1, Math.max(0, at + step))]?.focus();
}
