/** Palettes of PALETTE COLOR images (PS3.3 C.7.9), made plain numbers for the image loader. */

import { type DicomElement, type DicomObject, numbers } from './dicom_json';

/** The descriptor and the table of each colour. */
const colours = [
  ['00281101', '00281201'],
  ['00281102', '00281202'],
  ['00281103', '00281203'],
] as const;

/** Puts the numbers of every palette in place of its bytes, which may have to be fetched. */
export async function readPalettes(objects: DicomObject[]): Promise<void> {
  for (const object of objects) {
    for (const [descriptor, table] of colours) {
      const element = object[table];
      if (!element || element.Value) continue;
      const [entries = 0, , bits = 16] = numbers(object, descriptor);
      object[table] = { vr: 'US', Value: tableOf(await bytesOf(element), entries || 65536, bits) };
    }
  }
}

/** Entries of eight bits come as bytes or as words. */
function tableOf(bytes: Uint8Array, entries: number, bits: number): number[] {
  if (bits <= 8 && bytes.length < 2 * entries) return Array.from(bytes.subarray(0, entries));
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = Math.min(entries, bytes.length >> 1);
  return Array.from({ length }, (_, index) => view.getUint16(2 * index, true));
}

async function bytesOf({ InlineBinary, BulkDataURI }: DicomElement): Promise<Uint8Array> {
  if (InlineBinary) return Uint8Array.from(atob(InlineBinary), (letter) => letter.charCodeAt(0));
  if (!BulkDataURI) return new Uint8Array();
  const response = await fetch(BulkDataURI, {
    headers: { Accept: 'multipart/related; type="application/octet-stream"' },
  });
  const body = new Uint8Array(await response.arrayBuffer());
  const isMultipart = response.headers.get('Content-Type')?.startsWith('multipart/');
  return isMultipart ? onlyPart(body) : body;
}

/** The content of the one part of a multipart body. */
function onlyPart(body: Uint8Array): Uint8Array {
  const latin = new TextDecoder('latin1').decode(body);
  const start = latin.indexOf('\r\n\r\n') + 4;
  return body.slice(start, latin.lastIndexOf('\r\n--'));
}
