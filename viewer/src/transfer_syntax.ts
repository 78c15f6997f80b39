/** Names of transfer syntaxes, for sentences to people (PS3.6 Annex A). */

const prefix = '1.2.840.10008.1.2';

const names: Record<string, string> = {
  '': 'Implicit VR Little Endian',
  '.1': 'Explicit VR Little Endian',
  '.1.98': 'Encapsulated Uncompressed',
  '.1.99': 'Deflated Explicit VR Little Endian',
  '.2': 'Explicit VR Big Endian',
  '.5': 'RLE Lossless',
  '.8.1': 'Deflated Image Frame',
  '.4.50': 'JPEG Baseline',
  '.4.51': 'JPEG Extended',
  '.4.53': 'JPEG Spectral Selection, retired',
  '.4.55': 'JPEG Full Progression, retired',
  '.4.57': 'JPEG Lossless',
  '.4.70': 'JPEG Lossless, first-order',
  '.4.80': 'JPEG-LS Lossless',
  '.4.81': 'JPEG-LS Near-Lossless',
  '.4.90': 'JPEG 2000 Lossless',
  '.4.91': 'JPEG 2000',
  '.4.92': 'JPEG 2000 Part 2 Lossless',
  '.4.93': 'JPEG 2000 Part 2',
  '.4.94': 'JPIP Referenced',
  '.4.95': 'JPIP Referenced Deflate',
  '.4.110': 'JPEG XL Lossless',
  '.4.111': 'JPEG XL Recompression',
  '.4.112': 'JPEG XL',
  '.4.201': 'High-Throughput JPEG 2000 Lossless',
  '.4.202': 'High-Throughput JPEG 2000 Lossless RPCL',
  '.4.203': 'High-Throughput JPEG 2000',
};

/** The name and the UID, or the UID alone when it is not known here. */
export function transferSyntaxName(uid: string): string {
  const name = uid.startsWith(prefix) ? names[uid.slice(prefix.length)] : undefined;
  if (!uid) return 'transfer syntax not stated';
  return name ? `${name}, ${uid}` : `transfer syntax ${uid}`;
}

/** MPEG-2, MPEG-4 and HEVC. */
export function isVideo(uid: string): boolean {
  return /^1\.2\.840\.10008\.1\.2\.4\.10[0-8](\.1)?$/.test(uid);
}
