/** The letters at the edges of an image: which side of the patient is where (PS3.3 C.7.6.1.1.1). */

import { type DicomObject, numbers, Tag } from './dicom_json';

export interface Edges {
  top: string;
  right: string;
  bottom: string;
  left: string;
}

interface Camera {
  viewUp?: ArrayLike<number>;
  viewPlaneNormal?: ArrayLike<number>;
}

const letters = [
  ['L', 'R'],
  ['P', 'A'],
  ['H', 'F'],
] as const;

/** Null when the image does not say how it lies in the patient. */
export function edgesOf(camera: Camera, metadata: DicomObject | undefined): Edges | null {
  const { viewUp: up, viewPlaneNormal: towards } = camera;
  if (!metadata || !up || !towards) return null;
  if (numbers(metadata, Tag.imageOrientationPatient).length !== 6) return null;
  const right = cross(up, towards);
  return {
    top: lettersOf(Array.from(up)),
    right: lettersOf(right),
    bottom: lettersOf(Array.from(up, (value) => -value)),
    left: lettersOf(right.map((value) => -value)),
  };
}

/** At most two letters, the main direction first. */
function lettersOf(direction: number[]): string {
  return direction
    .map((value, axis) => ({ size: Math.abs(value), letter: letters[axis]?.[value > 0 ? 0 : 1] }))
    .filter(({ size }) => size > 0.25)
    .sort((a, b) => b.size - a.size)
    .slice(0, 2)
    .map(({ letter }) => letter)
    .join('');
}

function cross(a: ArrayLike<number>, b: ArrayLike<number>): number[] {
  const at = (v: ArrayLike<number>, index: number) => v[index % 3] ?? 0;
  return [0, 1, 2].map((i) => at(a, i + 1) * at(b, i + 2) - at(a, i + 2) * at(b, i + 1));
}
