/** The requests of the viewer: QIDO-RS for the lists, WADO-RS for metadata (PS3.18 10.4, 10.6). */

import { type DicomObject, Tag } from './dicom_json';
import { readPalettes } from './palette';

/** DICOMweb lies beside the page, wherever a proxy has put both. */
export const root = new URL('dicomweb/', document.baseURI).href;

export type Parameters = [name: string, value: string][];

/** A request the server answered with an error, or did not answer. */
export class RequestFailure extends Error {}

const studyFields = [
  Tag.studyDescription,
  Tag.modalitiesInStudy,
  Tag.numberOfStudyRelatedSeries,
  Tag.numberOfStudyRelatedInstances,
];
const seriesFields = [
  Tag.seriesDescription,
  Tag.bodyPartExamined,
  Tag.numberOfSeriesRelatedInstances,
];

/** Studies that match; `limit` and `offset` page through them. */
export function searchStudies(matching: Parameters, signal?: AbortSignal): Promise<DicomObject[]> {
  return getObjects(`studies?${query([...matching, ...included(studyFields)])}`, signal);
}

/** The series of a study: without a limit, the archive would name its first hundred. */
export function searchSeries(study: string, signal?: AbortSignal): Promise<DicomObject[]> {
  const parameters: Parameters = [['limit', '1000'], ...included(seriesFields)];
  return getObjects(`studies/${study}/series?${query(parameters)}`, signal);
}

/** The metadata of every instance of a series, bulk data addresses made absolute, palettes read. */
export async function retrieveMetadata(
  study: string,
  series: string,
  signal?: AbortSignal,
): Promise<DicomObject[]> {
  const objects = await getObjects(`studies/${study}/series/${series}/metadata`, signal);
  const base = `${root}studies/${study}/series/${series}/`;
  for (const object of objects) resolveBulkData(object, base);
  await readPalettes(objects);
  return objects;
}

/** The address of one frame; frames count from 1. */
export function frameAddress(object: DicomObject, frame: number): string {
  return `${instanceAddress(object)}/frames/${frame}`;
}

/** The address of a video as browsers play it; they cannot be told which Accept to send for one. */
export function videoAddress(object: DicomObject): string {
  return `${instanceAddress(object)}/rendered?accept=${encodeURIComponent('video/mp4')}`;
}

function instanceAddress(object: DicomObject): string {
  const uid = (tag: string) => String(object[tag]?.Value?.[0]);
  const series = `studies/${uid(Tag.studyInstanceUID)}/series/${uid(Tag.seriesInstanceUID)}`;
  return `${root}${series}/instances/${uid(Tag.sopInstanceUID)}`;
}

function included(tags: readonly string[]): Parameters {
  return tags.map((tag) => ['includefield', tag]);
}

function query(parameters: Parameters): string {
  return parameters.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join('&');
}

async function getObjects(path: string, signal?: AbortSignal): Promise<DicomObject[]> {
  const response = await ask(root + path, { Accept: 'application/dicom+json' }, signal);
  return response.status === 204 ? [] : ((await response.json()) as DicomObject[]);
}

/**
 * Asks for a resource.
 *
 * @throws RequestFailure the server answered with an error, or did not answer
 */
export async function ask(
  address: string,
  headers: Record<string, string>,
  signal?: AbortSignal,
): Promise<Response> {
  const response = await answer(address, headers, signal);
  if (!response.ok) throw new RequestFailure(await reason(response));
  return response;
}

async function answer(
  address: string,
  headers: Record<string, string>,
  signal?: AbortSignal,
): Promise<Response> {
  try {
    return await fetch(address, { headers, ...(signal && { signal }) });
  } catch (failure) {
    if (signal?.aborted) throw failure;
    throw new RequestFailure('The archive does not answer.');
  }
}

async function reason(response: Response): Promise<string> {
  const given = statedReason(await response.text());
  return `The archive answered ${response.status} ${given || response.statusText}.`;
}

/** The reason in the body of an error, if the archive is one that states it there. */
export function statedReason(body: string): string {
  try {
    const { reason } = JSON.parse(body) as { reason?: unknown };
    // In which other forms it can be had says nothing to who looks at images.
    return typeof reason === 'string' ? `(${reason.replace(/; it can be had as .*$/s, '')})` : '';
  } catch {
    return '';
  }
}

/** A relative BulkDataURI counts from the series; items of sequences have theirs too. */
function resolveBulkData(object: DicomObject, base: string): void {
  for (const element of Object.values(object)) {
    if (element.BulkDataURI) element.BulkDataURI = new URL(element.BulkDataURI, base).href;
    if (element.vr !== 'SQ') continue;
    for (const item of element.Value ?? []) {
      if (item) resolveBulkData(item as DicomObject, base);
    }
  }
}
