/** What stands in place of an image, and what one can do about it. */

interface Properties {
  text: string;
  /** Where the object can be had as it is stored; empty where that helps nobody. */
  original?: string;
}

export function Sentence({ text, original = '' }: Properties) {
  return (
    <div class="sentence">
      <p role="status">{text}</p>
      {original && (
        <p class="advice">
          <a href={original} download={fileName(original)}>
            Download it as it is stored
          </a>
          , for a program that reads it. Others are not affected.
        </p>
      )}
    </div>
  );
}

/** The SOP Instance UID with the ending that DICOM files have. */
function fileName(address: string): string {
  return `${new URL(address).pathname.split('/').at(-1)}.dcm`;
}
