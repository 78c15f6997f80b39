/**
 * In which form the frames of an object are asked for: as stored, where Cornerstone3D decodes that
 * rightly; else as a copy that the archive has, or converted by it at once.
 */

import { type DicomObject, number, Tag, text, texts } from './dicom_json';

/** One way to ask for a frame, and what then holds for its pixels. */
export interface Form {
  accept: string;
  metadata: DicomObject;
  /** Whether the pixels can be seen coarsely before all of them came. */
  progressive: boolean;
}

const jpeg = '1.2.840.10008.1.2.4.';
const native = '1.2.840.10008.1.2.1';
const rle = '1.2.840.10008.1.2.5';
const encapsulated = '1.2.840.10008.1.2.1.98';
const deflatedFrames = '1.2.840.10008.1.2.8.1';
const rpcl = `${jpeg}202`;

const uncompressed = new Set([
  '1.2.840.10008.1.2',
  native,
  '1.2.840.10008.1.2.1.99',
  '1.2.840.10008.1.2.2',
]);

/**
 * What Cornerstone3D 5.14 decodes to the right pixels. It has a decoder for .51, .53 and .55 as well,
 * but what that gives for twelve bits is off, by some thirty Hounsfield units in a CT image.
 */
const decoded = new Set([
  ...uncompressed,
  encapsulated,
  deflatedFrames,
  rle,
  ...[50, 57, 70, 80, 81, 90, 91, 110, 111, 112, 201, 202, 203].map((n) => `${jpeg}${n}`),
  '3.2.840.10008.1.2.4.96',
]);

/** Lossless copies, the one that is soonest on the screen first, with the media type they go by. */
const copies: [uid: string, mediaType: string][] = [
  [rpcl, 'image/jphc'],
  [`${jpeg}201`, 'image/jphc'],
  [`${jpeg}80`, 'image/jls'],
  [native, 'application/octet-stream'],
  [rle, 'image/dicom-rle'],
  [`${jpeg}70`, 'image/jpeg'],
  [`${jpeg}90`, 'image/jp2'],
];

const slow = new Set([`${jpeg}90`, `${jpeg}91`]);
const rgbWhenDecoded = new Set([110, 111, 112].map((n) => `${jpeg}${n}`));
const inLayers = new Set([rpcl, `${jpeg}203`, '3.2.840.10008.1.2.4.96']);
const largePixels = 1 << 20;

const anything = 'multipart/related; type=application/octet-stream; transfer-syntax=*';

/** The ways to ask for the frames of an object; each after the first is for when that failed. */
export function formsOf(object: DicomObject): Form[] {
  const [stored = ''] = texts(object, Tag.availableTransferSyntaxUID);
  const subsampled = isSubsampled(object, stored);
  if (subsampled && uncompressed.has(stored)) return [copyIn(object, rle, 'image/dicom-rle')];
  const here = (!stored || decoded.has(stored)) && !subsampled;
  const first = here ? preferred(object, stored) : copyOf(object);
  const found = [first, here && asStored(object), natively(object, stored)];
  return found.filter((form): form is Form => Boolean(form)).filter(isFirst);
}

const isFirst = (form: Form, index: number, forms: Form[]) =>
  forms.findIndex(({ accept }) => accept === form.accept) === index;

/** Chroma for every other pixel, which Cornerstone3D expects of JPEG only. */
function isSubsampled(object: DicomObject, stored: string): boolean {
  const colour = text(object, Tag.photometricInterpretation);
  const plain = uncompressed.has(stored) || stored === encapsulated || stored === deflatedFrames;
  return plain && /^YBR_(FULL|PARTIAL)_422$/.test(colour);
}

function asStored(object: DicomObject): Form {
  const [stored = ''] = texts(object, Tag.availableTransferSyntaxUID);
  const isRgb = rgbWhenDecoded.has(stored) && number(object, Tag.samplesPerPixel) === 3;
  const metadata = isRgb ? coloured(object, 'RGB') : object;
  return { accept: anything, metadata, progressive: inLayers.has(stored) && isLarge(object) };
}

/** Of a large image that takes long to decode, the copy that does not. */
function preferred(object: DicomObject, stored: string): Form | null {
  if (!slow.has(stored) || !isLarge(object)) return null;
  const available = texts(object, Tag.availableTransferSyntaxUID);
  return available.includes(rpcl) ? copyIn(object, rpcl, 'image/jphc') : null;
}

/** The best lossless copy that the archive says it has. */
function copyOf(object: DicomObject): Form | null {
  const available = new Set(texts(object, Tag.availableTransferSyntaxUID).slice(1));
  const best = copies.find(([uid]) => available.has(uid));
  return best ? copyIn(object, ...best) : null;
}

function copyIn(object: DicomObject, uid: string, mediaType: string): Form {
  return {
    accept: `multipart/related; type=${mediaType}; transfer-syntax=${uid}`,
    metadata: converted(object),
    progressive: inLayers.has(uid) && isLarge(object),
  };
}

function natively(object: DicomObject, stored: string): Form | null {
  return uncompressed.has(stored) ? null : copyIn(object, native, 'application/octet-stream');
}

function isLarge(object: DicomObject): boolean {
  return (number(object, Tag.rows) ?? 0) * (number(object, Tag.columns) ?? 0) >= largePixels;
}

/** What holds for pixels that the archive decoded, as it decodes them. */
function converted(object: DicomObject): DicomObject {
  const [stored = ''] = texts(object, Tag.availableTransferSyntaxUID);
  const colour = text(object, Tag.photometricInterpretation);
  if (number(object, Tag.samplesPerPixel) !== 3) return object;
  if (isSubsampled(object, stored)) return coloured(object, 'YBR_FULL');
  const samplesStay = uncompressed.has(stored) || keepsSamples.test(stored);
  return coloured(object, samplesStay ? colour : 'RGB');
}

/** Codings whose samples keep their colour space: plain ones, lossless JPEG, and JPEG-LS. */
const keepsSamples = /^1\.2\.840\.10008\.1\.2\.(1\.98|8\.1|5|4\.(57|58|65|66|70|80|81))$/;

function coloured(object: DicomObject, colour: string): DicomObject {
  return {
    ...object,
    [Tag.photometricInterpretation]: { vr: 'CS', Value: [colour] },
    [Tag.planarConfiguration]: { vr: 'US', Value: [0] },
  };
}
