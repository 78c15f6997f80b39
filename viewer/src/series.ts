/** From the metadata of a series to its frames in viewing order, or to the reason why there are none. */

import { type DicomObject, items, number, numbers, Tag, text } from './dicom_json';
import { frameAddress, videoAddress } from './dicomweb';
import { isReferenced, isVideo, transferSyntaxName } from './transfer_syntax';

export interface Frame {
  /** Where its pixels are. */
  address: string;
  /** Its own data set: of a multi-frame object, what holds for this frame. */
  metadata: DicomObject;
}

export interface Video {
  /** Where it is, in a form that browsers play. */
  address: string;
  metadata: DicomObject;
}

export interface Images {
  frames: Frame[];
  videos: Video[];
  /** One sentence that says why nothing, or not everything, is shown. */
  remark: string;
}

/** The first entry that the SOP Class UID begins with names what such an object is (PS3.4 B.5). */
const kinds: [prefix: string, kind: string][] = [
  ['1.2.840.10008.5.1.4.1.1.88.59', 'a list of key objects'],
  ['1.2.840.10008.5.1.4.1.1.88.', 'a structured report'],
  ['1.2.840.10008.5.1.4.1.1.104.1', 'a PDF document'],
  ['1.2.840.10008.5.1.4.1.1.104.', 'an encapsulated document'],
  ['1.2.840.10008.5.1.4.1.1.11.', 'a presentation state'],
  ['1.2.840.10008.5.1.4.1.1.9.', 'a waveform'],
  ['1.2.840.10008.5.1.4.1.1.66.1', 'a spatial registration'],
  ['1.2.840.10008.5.1.4.1.1.66.3', 'a spatial registration'],
  ['1.2.840.10008.5.1.4.1.1.66.4', 'a segmentation'],
  ['1.2.840.10008.5.1.4.1.1.66.7', 'a segmentation'],
  ['1.2.840.10008.5.1.4.1.1.66.5', 'a surface segmentation'],
  ['1.2.840.10008.5.1.4.1.1.66', 'raw data'],
  ['1.2.840.10008.5.1.4.1.1.67', 'a real world value mapping'],
  ['1.2.840.10008.5.1.4.1.1.30', 'a parametric map'],
  ['1.2.840.10008.5.1.4.1.1.91.1', 'annotations of a microscopy image'],
  ['1.2.840.10008.5.1.4.1.1.481.3', 'a radiotherapy structure set'],
  ['1.2.840.10008.5.1.4.1.1.481.', 'a radiotherapy object'],
];

/** The frames of all the images of a series, in viewing order, and its videos. */
export function imagesOf(objects: DicomObject[]): Images {
  const shown = objects.filter((object) => !obstacle(object));
  const frames = inViewingOrder(shown.filter((object) => !holdsVideo(object)).flatMap(framesOf));
  const videos = stableSort(shown.filter(holdsVideo).map(videoOf), instanceNumber);
  return { frames, videos, remark: remarkOn(objects) };
}

function remarkOn(objects: DicomObject[]): string {
  const hidden = objects.filter(obstacle);
  const [first] = hidden;
  if (!objects.length) return 'This series holds no objects any more.';
  if (!first) return '';
  if (hidden.length === objects.length) return `This series holds ${obstacle(first)}.`;
  return `${hidden.length} of ${objects.length} objects are ${obstacle(first)}.`;
}

const holdsVideo = (object: DicomObject) => isVideo(text(object, Tag.availableTransferSyntaxUID));

function videoOf(object: DicomObject): Video {
  return { address: videoAddress(object), metadata: object };
}

/** What keeps an object from being shown as an image, in words; empty when nothing does. */
function obstacle(object: DicomObject): string {
  const kind = kindOf(text(object, Tag.sopClassUID));
  if (object[Tag.floatPixelData] || object[Tag.doubleFloatPixelData]) {
    return 'floating-point images, which are not drawn';
  }
  if (!number(object, Tag.rows)) return `${kind || 'data of another kind'}, not images`;
  if (!text(object, Tag.photometricInterpretation))
    return 'images without Photometric Interpretation';
  if (kind === 'a segmentation') return `${kind}, which is not drawn by itself`;
  if (number(object, Tag.bitsAllocated) === 1) return 'one-bit images, which are not drawn';
  const syntax = text(object, Tag.availableTransferSyntaxUID);
  if (isReferenced(syntax)) {
    return `images whose pixels lie on another server (${transferSyntaxName(syntax)}), which is not asked for them`;
  }
  return '';
}

function kindOf(sopClassUID: string): string {
  return kinds.find(([prefix]) => sopClassUID.startsWith(prefix))?.[1] ?? '';
}

function framesOf(object: DicomObject): Frame[] {
  // Type 1 in every image, and the loader breaks without it.
  object[Tag.modality] ??= { vr: 'CS', Value: ['OT'] };
  const amount = number(object, Tag.numberOfFrames) ?? 1;
  if (amount <= 1 && !object[Tag.sharedFunctionalGroupsSequence]) {
    return [{ address: frameAddress(object, 1), metadata: object }];
  }
  const perFrame = items(object, Tag.perFrameFunctionalGroupsSequence);
  const common = { ...object, ...macros(items(object, Tag.sharedFunctionalGroupsSequence)[0]) };
  for (const tag of [
    Tag.sharedFunctionalGroupsSequence,
    Tag.perFrameFunctionalGroupsSequence,
    Tag.numberOfFrames,
  ]) {
    Reflect.deleteProperty(common, tag);
  }
  return Array.from({ length: amount }, (_, index) => ({
    address: frameAddress(object, index + 1),
    metadata: { ...common, ...macros(perFrame[index]) },
  }));
}

/** The attributes of every functional group macro, as if the frame were an image of its own. */
function macros(group: DicomObject | undefined): DicomObject {
  const flat: DicomObject = {};
  for (const tag of Object.keys(group ?? {})) Object.assign(flat, items(group ?? {}, tag)[0]);
  return flat;
}

/**
 * Frames along the normal of their common plane, in the direction in which the numbers run; by
 * Instance Number where there is no such plane (PS3.3 C.7.6.2.1.1).
 */
function inViewingOrder(frames: Frame[]): Frame[] {
  const numbered = stableSort(frames, instanceNumber);
  const normal = commonNormal(numbered);
  if (!normal) return numbered;
  const position = (frame: Frame) => dot(normal, numbers(frame.metadata, Tag.imagePositionPatient));
  const [first, last] = [numbered[0], numbered.at(-1)];
  if (!first || !last || Math.abs(position(last) - position(first)) < 1e-3) return numbered;
  const direction = Math.sign(position(last) - position(first));
  return stableSort(numbered, (frame) => direction * position(frame));
}

function stableSort<T>(things: T[], key: (thing: T) => number): T[] {
  return things
    .map((thing) => ({ thing, value: key(thing) }))
    .sort((a, b) => a.value - b.value)
    .map(({ thing }) => thing);
}

const instanceNumber = ({ metadata }: { metadata: DicomObject }) =>
  number(metadata, Tag.instanceNumber) ?? 0;

/** Null when a frame has no position or lies in another direction. */
function commonNormal(frames: Frame[]): number[] | null {
  const normals = frames.map(({ metadata }) => normalOf(metadata));
  const first = normals[0];
  const aligned = (normal: number[] | null) => first && normal && dot(first, normal) > 0.999;
  return first && normals.every(aligned) ? first : null;
}

function normalOf(metadata: DicomObject): number[] | null {
  const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = numbers(metadata, Tag.imageOrientationPatient);
  const normal = [b * f - c * e, c * d - a * f, a * e - b * d];
  const known = numbers(metadata, Tag.imagePositionPatient).length === 3;
  return known && Math.hypot(...normal) > 0.5 ? normal : null;
}

function dot(a: readonly number[], b: readonly number[]): number {
  return a.reduce((sum, value, index) => sum + value * (b[index] ?? 0), 0);
}

/** The memory that a decoded frame takes. */
export function bytesOf({ metadata }: Frame): number {
  const samples = number(metadata, Tag.samplesPerPixel) ?? 1;
  const bytes = (number(metadata, Tag.bitsAllocated) ?? 16) > 8 ? 2 : 1;
  const pixels = (number(metadata, Tag.rows) ?? 512) * (number(metadata, Tag.columns) ?? 512);
  return Math.max(1, pixels * samples * bytes);
}
