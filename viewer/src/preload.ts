/** Fetches the code of the image page before it is needed, without running it. */

let done = false;

/** The build names the chunks in inert links; here they become preloads. */
export function preloadImageChunks(): void {
  if (done) return;
  done = true;
  for (const link of document.querySelectorAll<HTMLLinkElement>('link[rel="x-image-chunk"]')) {
    link.rel = 'modulepreload';
  }
}
