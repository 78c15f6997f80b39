/** The state of the study list: what is asked for, what came back, kept up to date by asking again. */

import { computed, signal } from '@preact/signals';
import { type DicomObject, Tag, text } from './dicom_json';
import { type Parameters, searchStudies } from './dicomweb';

export const pageSize = 100;
const refreshMs = 3000;

/** The fields of the filter, by the names they have in the address. */
export const fields = [
  'PatientName',
  'PatientID',
  'StudyDate',
  'ModalitiesInStudy',
  'StudyDescription',
  'AccessionNumber',
] as const;
export type Field = (typeof fields)[number];

const exact = new Set<Field>(['StudyDate', 'ModalitiesInStudy']);

/** Null until the first answer. */
export const studies = signal<DicomObject[] | null>(null);
export const more = signal(false);
export const failure = signal('');
/** Studies that came in while the list was open. */
export const arrived = signal<ReadonlySet<string>>(new Set());

export const images = computed(() =>
  (studies.value ?? []).reduce(
    (sum, study) => sum + Number(text(study, Tag.numberOfStudyRelatedInstances) || 0),
    0,
  ),
);

/** The matching keys of QIDO-RS (PS3.18 8.3.4): text fields match anywhere in the value. */
export function matching(filter: URLSearchParams): Parameters {
  const keys: Parameters = [];
  for (const field of fields) {
    const value = filter.get(field)?.trim();
    if (value) keys.push([field, exact.has(field) ? value : `*${value}*`]);
  }
  return keys;
}

/** The first study of the page that the filter names. */
export function offset(filter: URLSearchParams): number {
  return Math.max(0, Number(filter.get('offset')) || 0);
}

/** Asks now and every few seconds while the page is visible; returns what stops it. */
export function follow(filter: URLSearchParams): () => void {
  const control = new AbortController();
  const accept = reception();
  const ask = async () => {
    if (!document.hidden) await refresh(filter, control.signal, accept);
    if (!control.signal.aborted) timer = window.setTimeout(ask, refreshMs);
  };
  let timer = 0;
  void ask();
  return () => {
    control.abort();
    clearTimeout(timer);
  };
}

type Accept = (answer: DicomObject[]) => void;

async function refresh(filter: URLSearchParams, signal: AbortSignal, accept: Accept) {
  const paging: Parameters = [
    ['limit', String(pageSize + 1)],
    ['offset', String(offset(filter))],
  ];
  try {
    const answer = await searchStudies([...paging, ...matching(filter)], signal);
    if (!signal.aborted) accept(answer);
  } catch (error) {
    if (!signal.aborted) failure.value = (error as Error).message;
  }
}

/** Takes the answers of one filter in order; what the first did not hold has arrived since. */
function reception(): Accept {
  let known: Set<string> | null = null;
  arrived.value = new Set();
  return (answer) => {
    failure.value = '';
    more.value = answer.length > pageSize;
    const page = answer.slice(0, pageSize).sort(newestFirst);
    const news = known ? page.map(uid).filter((study) => !known?.has(study)) : [];
    known = new Set([...(known ?? []), ...page.map(uid)]);
    if (news.length) arrived.value = new Set([...arrived.value, ...news]);
    if (JSON.stringify(studies.value) !== JSON.stringify(page)) studies.value = page;
  };
}

export function uid(study: DicomObject): string {
  return text(study, Tag.studyInstanceUID);
}

function newestFirst(a: DicomObject, b: DicomObject): number {
  const moment = (study: DicomObject) => text(study, Tag.studyDate) + text(study, Tag.studyTime);
  return moment(b).localeCompare(moment(a)) || uid(a).localeCompare(uid(b));
}
