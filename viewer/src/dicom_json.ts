/** Reading the DICOM JSON Model (PS3.18 Annex F) and writing its values for people. */

export interface DicomElement {
  vr?: string;
  Value?: unknown[];
  InlineBinary?: string;
  BulkDataURI?: string;
}

/** One data set: tags as eight upper-case hexadecimal digits. */
export type DicomObject = Record<string, DicomElement>;

export const Tag = {
  sopClassUID: '00080016',
  sopInstanceUID: '00080018',
  studyDate: '00080020',
  studyTime: '00080030',
  accessionNumber: '00080050',
  modality: '00080060',
  modalitiesInStudy: '00080061',
  studyDescription: '00081030',
  seriesDescription: '0008103E',
  availableTransferSyntaxUID: '00083002',
  patientName: '00100010',
  patientID: '00100020',
  patientBirthDate: '00100030',
  patientSex: '00100040',
  bodyPartExamined: '00180015',
  sliceThickness: '00180050',
  studyInstanceUID: '0020000D',
  seriesInstanceUID: '0020000E',
  seriesNumber: '00200011',
  instanceNumber: '00200013',
  imagePositionPatient: '00200032',
  imageOrientationPatient: '00200037',
  numberOfStudyRelatedSeries: '00201206',
  numberOfStudyRelatedInstances: '00201208',
  numberOfSeriesRelatedInstances: '00201209',
  samplesPerPixel: '00280002',
  photometricInterpretation: '00280004',
  planarConfiguration: '00280006',
  numberOfFrames: '00280008',
  rows: '00280010',
  columns: '00280011',
  bitsAllocated: '00280100',
  windowCenter: '00281050',
  windowWidth: '00281051',
  voiLUTFunction: '00281056',
  sharedFunctionalGroupsSequence: '52009229',
  perFrameFunctionalGroupsSequence: '52009230',
  floatPixelData: '7FE00008',
  doubleFloatPixelData: '7FE00009',
} as const;

/** The first value as text; person names by their alphabetic group, or the first one there is. */
export function text(object: DicomObject, tag: string): string {
  const value = object[tag]?.Value?.[0];
  if (value === undefined || value === null) return '';
  if (typeof value === 'object') return nameGroup(value as Record<string, string>);
  return String(value);
}

/** All values as text. */
export function texts(object: DicomObject, tag: string): string[] {
  return (object[tag]?.Value ?? []).filter((value) => value !== null).map(String);
}

/** All values as numbers; values that are none are left out. */
export function numbers(object: DicomObject, tag: string): number[] {
  return (object[tag]?.Value ?? []).map(Number).filter(Number.isFinite);
}

/** The first value as a number, or undefined. */
export function number(object: DicomObject, tag: string): number | undefined {
  return numbers(object, tag)[0];
}

/** The items of a sequence. */
export function items(object: DicomObject, tag: string): DicomObject[] {
  return (object[tag]?.Value ?? []).filter(Boolean) as DicomObject[];
}

function nameGroup(name: Record<string, string>): string {
  return name.Alphabetic ?? name.Ideographic ?? name.Phonetic ?? '';
}

/** `DOE^JANE^M` as `DOE, JANE M` (PS3.5 6.2.1.1). */
export function formatName(name: string): string {
  const [family = '', given = '', middle = ''] = name.split('^').map((part) => part.trim());
  const first = [given, middle].filter(Boolean).join(' ');
  return [family, first].filter(Boolean).join(', ');
}

/** `20260131` as `2026-01-31`; what is no such date is shown as it is. */
export function formatDate(date: string): string {
  return date.replace(/^(\d{4})(\d{2})(\d{2})$/, '$1-$2-$3');
}

/** `134502.123` as `13:45`. */
export function formatTime(time: string): string {
  return time.replace(/^(\d{2})(\d{2}).*$/, '$1:$2');
}

/** `1 image`, `12 images`. */
export function count(amount: number | undefined, noun: string): string {
  if (amount === undefined) return '';
  return `${amount} ${amount === 1 ? noun : `${noun}s`}`;
}
