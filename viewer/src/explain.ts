/** Why a frame cannot be shown, in one sentence. */

import { type DicomObject, Tag, text } from './dicom_json';
import { statedReason } from './dicomweb';
import { transferSyntaxName } from './transfer_syntax';

/** `failure` is what the image loader throws: the request that failed, or an error of the decoder. */
export function explain(failure: unknown, metadata: DicomObject): string {
  const syntax = text(metadata, Tag.availableTransferSyntaxUID);
  if (failure instanceof XMLHttpRequest) return explainRequest(failure, syntax);
  const message = failure instanceof Error ? failure.message : String(failure);
  const unknown = /no decoder for transfer syntax (\S+)/i.exec(message)?.[1];
  if (unknown) return `The viewer has no decoder for this image (${transferSyntaxName(unknown)}).`;
  return `This image cannot be decoded (${transferSyntaxName(syntax)}).`;
}

/** What to say when neither an image nor an error comes: some of the loader's failures are silent. */
export function explainDelay(metadata: DicomObject): string {
  const name = transferSyntaxName(text(metadata, Tag.availableTransferSyntaxUID));
  return `This image is not there yet; perhaps it cannot be decoded (${name}).`;
}

function explainRequest(request: XMLHttpRequest, syntax: string): string {
  if (!request.status) return 'The archive does not answer.';
  const body = request.response instanceof ArrayBuffer ? request.response : new ArrayBuffer(0);
  const reason = statedReason(new TextDecoder().decode(body)) || request.statusText;
  const name = transferSyntaxName(syntax);
  return `The archive answered ${request.status} ${reason} for this image (${name}).`;
}
