/** Draws a decoded frame small, without a viewport. */

import type { Picture } from './cornerstone';

/** Fits the picture into the canvas, keeping its proportions, by the nearest pixel. */
export function drawThumbnail(picture: Picture, canvas: HTMLCanvasElement): void {
  const context = canvas.getContext('2d');
  if (!context) return;
  const scale = Math.max(picture.columns / canvas.width, picture.rows / canvas.height);
  const width = Math.max(1, Math.round(picture.columns / scale));
  const height = Math.max(1, Math.round(picture.rows / scale));
  const target = context.createImageData(width, height);
  for (let y = 0; y < height; y++) {
    const row = Math.min(picture.rows - 1, Math.floor((y + 0.5) * scale)) * picture.columns;
    for (let x = 0; x < width; x++) {
      const source = row + Math.min(picture.columns - 1, Math.floor((x + 0.5) * scale));
      target.data.set(colour(picture, source), (y * width + x) * 4);
    }
  }
  context.putImageData(target, (canvas.width - width) >> 1, (canvas.height - height) >> 1);
}

function colour({ pixels, components, window, invert }: Picture, index: number): number[] {
  const at = index * components;
  if (components >= 3) return [pixels[at] ?? 0, pixels[at + 1] ?? 0, pixels[at + 2] ?? 0, 255];
  const share = ((pixels[at] ?? 0) - window.center) / Math.max(1, window.width) + 0.5;
  const grey = 255 * Math.min(1, Math.max(0, invert ? 1 - share : share));
  return [grey, grey, grey, 255];
}
