/** What the page shows, kept in the fragment of its address: links and the back button work. */

import { signal } from '@preact/signals';

export type Route =
  | { page: 'studies'; filter: URLSearchParams }
  | { page: 'study'; study: string; series: string | undefined }
  | { page: 'statistics' };

export const statisticsLink = '#/statistics';

const studyPath = /^#\/study\/([0-9.]{1,64})(?:\/series\/([0-9.]{1,64}))?$/;

function parse(hash: string): Route {
  const match = studyPath.exec(hash);
  if (match?.[1]) return { page: 'study', study: match[1], series: match[2] };
  if (hash === statisticsLink) return { page: 'statistics' };
  return { page: 'studies', filter: new URLSearchParams(hash.split('?')[1] ?? '') };
}

export const route = signal<Route>(parse(location.hash));

addEventListener('hashchange', () => {
  route.value = parse(location.hash);
});

/** The link to a study, or to one of its series. */
export function studyLink(study: string, series?: string): string {
  return `#/study/${study}${series ? `/series/${series}` : ''}`;
}

/** The link to the study list with a filter. */
export function studiesLink(filter: URLSearchParams): string {
  return filter.size ? `#/?${filter}` : '#/';
}

/** Goes to a link; `replace` leaves no step for the back button. */
export function go(link: string, replace = false): void {
  if (link === location.hash) return;
  history[replace ? 'replaceState' : 'pushState'](null, '', link);
  route.value = parse(link);
}
