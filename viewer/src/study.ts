/** An opened study: its series, which one is shown, and what became of that. */

import { signal } from '@preact/signals';
import type { StackView } from './cornerstone';
import { type DicomObject, number, Tag, text } from './dicom_json';
import { retrieveMetadata, searchSeries, searchStudies } from './dicomweb';
import { type Images, imagesOf, type Video } from './series';

const refreshMs = 5000;

/** Modalities whose series hold no images: a study is opened at another, if there is one. */
export const imageless = new Set([
  'SR',
  'PR',
  'KO',
  'SEG',
  'RTSTRUCT',
  'RTPLAN',
  'REG',
  'RWV',
  'DOC',
  'AU',
  'ECG',
  'ANN',
]);

/** One for each visit: what still runs when the visitor has left changes nothing any more. */
export class Study {
  /** The study's own attributes, empty until they came. */
  readonly attributes = signal<DicomObject>({});
  /** Null until the first answer. */
  readonly seriesList = signal<DicomObject[] | null>(null);
  /** The sentence that stands in place of an image: loading, not an image, or a failure. */
  readonly sentence = signal('');
  /** What is not shown of a series that has images. */
  readonly remark = signal('');
  /** The videos of the series, beside its images or instead of them. */
  readonly videos = signal<readonly Video[]>([]);
  /** Which of them is played; null while images are shown. */
  readonly video = signal<number | null>(null);
  /** The viewport, once Cornerstone is loaded and the page is there. */
  readonly view = signal<StackView | null>(null);
  /** The series that is shown or on its way. */
  readonly selected = signal('');

  private readonly loads = new Map<string, Promise<Images>>();

  constructor(readonly uid: string) {}

  /** Lists the series now and every few seconds; returns what stops it. */
  follow(): () => void {
    const control = new AbortController();
    const { signal } = control;
    let timer = 0;
    const ask = async () => {
      if (!document.hidden) await this.refresh(signal);
      if (!signal.aborted) timer = window.setTimeout(ask, refreshMs);
    };
    void ask();
    void this.describe(signal);
    return () => {
      control.abort();
      clearTimeout(timer);
    };
  }

  /** Chooses a series: shows it, or the sentence that says why not. */
  async show(uid: string): Promise<void> {
    this.selected.value = uid;
    this.view.value?.clear();
    this.sentence.value = 'Loading…';
    this.remark.value = '';
    this.videos.value = [];
    this.video.value = null;
    await this.put(uid, false);
  }

  /** The frames of a series, asked for once. */
  images(uid: string): Promise<Images> {
    const known = this.loads.get(uid);
    if (known) return known;
    const images = retrieveMetadata(this.uid, uid).then(imagesOf);
    images.catch(() => this.loads.delete(uid));
    this.loads.set(uid, images);
    return images;
  }

  /** The chosen series as it stands in the list, or empty. */
  get series(): DicomObject {
    const list = this.seriesList.value ?? [];
    return list.find((series) => seriesUID(series) === this.selected.value) ?? {};
  }

  /** The series before or after the chosen one. */
  neighbour(step: 1 | -1): string | undefined {
    const list = (this.seriesList.value ?? []).map(seriesUID);
    return list[list.indexOf(this.selected.value) + step];
  }

  /** The series to start with. */
  get first(): string | undefined {
    const list = this.seriesList.value ?? [];
    const first = list.find((series) => !imageless.has(text(series, Tag.modality))) ?? list[0];
    return first && seriesUID(first);
  }

  private async put(uid: string, keep: boolean): Promise<void> {
    const stack = this.view.value;
    const isWanted = () => this.selected.value === uid && this.view.value === stack;
    try {
      const { frames, videos, remark } = await this.images(uid);
      if (!isWanted() || !stack) return;
      const shown = frames.length + videos.length > 0;
      this.sentence.value = shown ? '' : remark;
      this.remark.value = shown ? remark : '';
      this.videos.value = videos;
      if (!frames.length && videos.length) this.video.value ??= 0;
      if (frames.length) await stack.show(frames, keep ? stack.state.value.index : 0, keep);
    } catch (error) {
      if (isWanted()) this.sentence.value = (error as Error).message;
    }
  }

  private async describe(signal: AbortSignal): Promise<void> {
    const matching: [string, string][] = [[Tag.studyInstanceUID, this.uid]];
    const [found] = await searchStudies(matching, signal).catch(() => []);
    if (found) this.attributes.value = found;
  }

  private async refresh(signal: AbortSignal): Promise<void> {
    try {
      this.accept((await searchSeries(this.uid, signal)).sort(bySeriesNumber));
    } catch (error) {
      const isFirst = !this.seriesList.value && !this.selected.value;
      if (!signal.aborted && isFirst) this.sentence.value = (error as Error).message;
    }
  }

  private accept(list: DicomObject[]): void {
    const before = this.seriesList.value;
    if (JSON.stringify(before) === JSON.stringify(list)) return;
    this.seriesList.value = list;
    if (!list.length) this.sentence.value = 'The archive holds no such study.';
    for (const series of grown(before ?? [], list)) this.reload(seriesUID(series));
  }

  /** A series that grew is asked for again; the one in view keeps its window and its place. */
  private reload(uid: string): void {
    this.loads.delete(uid);
    if (this.selected.value === uid) void this.put(uid, !this.sentence.value);
  }
}

export function seriesUID(series: DicomObject): string {
  return text(series, Tag.seriesInstanceUID);
}

function grown(before: DicomObject[], now: DicomObject[]): DicomObject[] {
  const amount = (series: DicomObject) => text(series, Tag.numberOfSeriesRelatedInstances);
  const known = new Map(before.map((series) => [seriesUID(series), amount(series)]));
  return now.filter((series) => {
    const last = known.get(seriesUID(series));
    return last !== undefined && last !== amount(series);
  });
}

function bySeriesNumber(a: DicomObject, b: DicomObject): number {
  const order = (series: DicomObject) =>
    number(series, Tag.seriesNumber) ?? Number.MAX_SAFE_INTEGER;
  return order(a) - order(b) || seriesUID(a).localeCompare(seriesUID(b));
}
