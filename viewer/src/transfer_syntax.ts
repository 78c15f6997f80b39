/** Transfer syntaxes: their names, for sentences to people (PS3.6 Table A-1), and their kinds. */

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
  '.4.52': 'JPEG Extended (Process 3 and 5), retired',
  '.4.53': 'JPEG Spectral Selection (Process 6 and 8), retired',
  '.4.54': 'JPEG Spectral Selection (Process 7 and 9), retired',
  '.4.55': 'JPEG Full Progression (Process 10 and 12), retired',
  '.4.56': 'JPEG Full Progression (Process 11 and 13), retired',
  '.4.57': 'JPEG Lossless',
  '.4.58': 'JPEG Lossless (Process 15), retired',
  '.4.59': 'JPEG Extended, hierarchical (Process 16 and 18), retired',
  '.4.60': 'JPEG Extended, hierarchical (Process 17 and 19), retired',
  '.4.61': 'JPEG Spectral Selection, hierarchical (Process 20 and 22), retired',
  '.4.62': 'JPEG Spectral Selection, hierarchical (Process 21 and 23), retired',
  '.4.63': 'JPEG Full Progression, hierarchical (Process 24 and 26), retired',
  '.4.64': 'JPEG Full Progression, hierarchical (Process 25 and 27), retired',
  '.4.65': 'JPEG Lossless, hierarchical (Process 28), retired',
  '.4.66': 'JPEG Lossless, hierarchical (Process 29), retired',
  '.4.70': 'JPEG Lossless, first-order',
  '.4.80': 'JPEG-LS Lossless',
  '.4.81': 'JPEG-LS Near-Lossless',
  '.4.90': 'JPEG 2000 Lossless',
  '.4.91': 'JPEG 2000',
  '.4.92': 'JPEG 2000 Part 2 Lossless',
  '.4.93': 'JPEG 2000 Part 2',
  '.4.94': 'JPIP Referenced',
  '.4.95': 'JPIP Referenced Deflate',
  '.4.100': 'MPEG-2 Main Level',
  '.4.101': 'MPEG-2 High Level',
  '.4.102': 'H.264 Level 4.1',
  '.4.103': 'H.264 Level 4.1, BD-compatible',
  '.4.104': 'H.264 Level 4.2 for 2D video',
  '.4.105': 'H.264 Level 4.2 for 3D video',
  '.4.106': 'H.264 Stereo Level 4.2',
  '.4.107': 'HEVC Main Level 5.1',
  '.4.108': 'HEVC Main 10 Level 5.1',
  '.4.110': 'JPEG XL Lossless',
  '.4.111': 'JPEG XL Recompression',
  '.4.112': 'JPEG XL',
  '.4.201': 'High-Throughput JPEG 2000 Lossless',
  '.4.202': 'High-Throughput JPEG 2000 Lossless RPCL',
  '.4.203': 'High-Throughput JPEG 2000',
  '.4.204': 'JPIP HTJ2K Referenced',
  '.4.205': 'JPIP HTJ2K Referenced Deflate',
  '.6.1': 'RFC 2557 MIME encapsulation, retired',
  '.6.2': 'XML Encoding, retired',
  '.7.1': 'SMPTE ST 2110-20 progressive video',
  '.7.2': 'SMPTE ST 2110-20 interlaced video',
  '.7.3': 'SMPTE ST 2110-30 audio',
};

const others: Record<string, string> = {
  '3.2.840.10008.1.2.4.96': 'High-Throughput JPEG 2000, before its standard',
  '1.2.840.10008.1.20': 'Papyrus 3 Implicit VR Little Endian, retired',
};

/** The name alone, as short as people say it; the UID when it has none here. */
export function shortName(uid: string): string {
  return nameOf(uid)?.replace('High-Throughput JPEG 2000', 'HTJ2K') ?? uid;
}

/** The name and the UID, or the UID alone when it is not known here. */
export function transferSyntaxName(uid: string): string {
  if (!uid) return 'transfer syntax not stated';
  const name = nameOf(uid);
  return name ? `${name}, ${uid}` : `transfer syntax ${uid}`;
}

function nameOf(uid: string): string | undefined {
  if (uid in others) return others[uid];
  if (uid !== prefix && !uid.startsWith(`${prefix}.`)) return undefined;
  const plain = uid.slice(prefix.length);
  const whole = plain.replace(/^(\.4\.10[0-6])\.1$/, '$1');
  const name = names[whole];
  return name && whole !== plain ? `${name}, fragmentable` : name;
}

/** MPEG-2, MPEG-4 and HEVC. */
export function isVideo(uid: string): boolean {
  return /^1\.2\.840\.10008\.1\.2\.4\.10[0-8](\.1)?$/.test(uid);
}

/** H.264, which browsers play. */
export function isH264(uid: string): boolean {
  return /^1\.2\.840\.10008\.1\.2\.4\.10[2-6](\.1)?$/.test(uid);
}

/** Pixels that lie on another server, which is asked for them by JPIP (PS3.5 Annex A.6, A.7). */
export function isReferenced(uid: string): boolean {
  return /^1\.2\.840\.10008\.1\.2\.4\.(94|95|204|205)$/.test(uid);
}
