/** Why a frame cannot be shown, in one sentence. */

import { type DicomObject, Tag, text } from './dicom_json';
import { statedReason } from './dicomweb';
import { transferSyntaxName } from './transfer_syntax';

/** `failure` is what the image loader throws: the request that failed, or an error of the decoder. */
export function explain(failure: unknown, metadata: DicomObject): string {
  const syntax = transferSyntaxName(text(metadata, Tag.availableTransferSyntaxUID));
  if (failure instanceof XMLHttpRequest) return explainRequest(failure, syntax);
  return `This image cannot be decoded (${syntax}).`;
}

/** What to say when neither an image nor an error comes: some of the loader's failures are silent. */
export function explainDelay(metadata: DicomObject): string {
  const name = transferSyntaxName(text(metadata, Tag.availableTransferSyntaxUID));
  return `This image is not there yet; perhaps it cannot be decoded (${name}).`;
}

/** The address, as a file and as it is stored, of the object that a frame or a video belongs to. */
export function originalOf(address: string): string {
  const accept = encodeURIComponent('application/dicom; transfer-syntax=*');
  return `${address.replace(/\/(frames\/\d+|rendered)(\?.*)?$/, '')}?accept=${accept}`;
}

function explainRequest(request: XMLHttpRequest, syntax: string): string {
  if (!request.status) return 'The archive does not answer.';
  const body = request.response instanceof ArrayBuffer ? request.response : new ArrayBuffer(0);
  const reason = statedReason(new TextDecoder().decode(body)) || request.statusText;
  if (request.status === 406) {
    return `This image cannot be shown. It is stored as ${syntax}, and the archive cannot decode it ${reason}.`;
  }
  return `The archive answered ${request.status} ${reason} for this image (${syntax}).`;
}
