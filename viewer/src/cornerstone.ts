/**
 * The one module that knows Cornerstone3D: a stack of frames in one element.
 *
 * The rest of the viewer imports its types and loads it when a study is opened. Cornerstone draws to
 * a plain 2D canvas in the element; it falls back to the CPU by itself where there is no WebGL.
 */

import {
  cache,
  Enums,
  imageLoader,
  init,
  metaData,
  RenderingEngine,
  type StackViewport,
  type Types,
  utilities,
} from '@cornerstonejs/core';
import { init as initLoader, wadors } from '@cornerstonejs/dicom-image-loader';
import { type ReadonlySignal, signal } from '@preact/signals';
import { type DicomObject, numbers, Tag, text } from './dicom_json';
import { explain, explainDelay, originalOf } from './explain';
import { type Form, formsOf } from './forms';
import { FrameQueue } from './frame_queue';
import { type Edges, edgesOf } from './orientation';
import type { Window } from './presets';
import { bytesOf, type Frame } from './series';

export interface ViewState {
  /** The frame shown or on its way, from 0. */
  index: number;
  count: number;
  /** Frames that were fetched and decoded. */
  loaded: number;
  /** Whether the frame of `index` is the one on the screen. */
  drawn: boolean;
  /** Null for colour images and before the first image. */
  window: Window | null;
  invert: boolean;
  /** CSS pixels for one pixel of the image. */
  zoom: number;
  edges: Edges | null;
  /** Why the frame of `index` cannot be shown. */
  problem: string;
  /** Where it can be had as it is stored, when it cannot be shown. */
  original: string;
  /** A coarse picture of the frame of `index`, to look at until that is drawn. */
  preview: Picture | null;
}

/** Decoded pixels with the window they ask for, to be drawn small. */
export interface Picture {
  pixels: ArrayLike<number>;
  rows: number;
  columns: number;
  components: number;
  window: Window;
  invert: boolean;
}

const nothing: ViewState = {
  index: 0,
  count: 0,
  loaded: 0,
  drawn: false,
  window: null,
  invert: false,
  zoom: 1,
  edges: null,
  problem: '',
  original: '',
  preview: null,
};

/** Memory for decoded frames; beyond it they are fetched as they are looked at. */
const cacheBytes = 2 ** 30;
const viewportId = 'stack';
/** Halvings of rows and columns; the loader knows three. */
const previewLevel = 3;
const patienceMs = 15_000;

let engines = 0;
let started = false;

function start(): void {
  if (started) return;
  started = true;
  init();
  initLoader({
    maxWebWorkers: Math.max(1, Math.min(4, (navigator.hardwareConcurrency || 2) - 1)),
    beforeSend: async (_request, imageId) => ({ Accept: formOf(imageId)?.accept ?? '*/*' }),
  });
  metaData.addProvider(voiLutModule, aboveThoseOfTheLoader);
  cache.setMaxCacheSize(cacheBytes * 1.25);
}

const aboveThoseOfTheLoader = 10_000;
const voiLutFunctions = new Set<string>(Object.values(Enums.VOILUTFunctionType));

/** The window of a frame. By the loader's own provider, `LINEAR` would be the function `L`. */
function voiLutModule(type: string, imageId: unknown): object | undefined {
  if (type !== Enums.MetadataModules.VOI_LUT || typeof imageId !== 'string') return undefined;
  const object = wadors.metaDataManager.get(imageId) as unknown as DicomObject | undefined;
  if (!object) return undefined;
  const voiLUTFunction = [text(object, Tag.voiLUTFunction)].filter((f) => voiLutFunctions.has(f));
  return {
    windowCenter: numbers(object, Tag.windowCenter),
    windowWidth: numbers(object, Tag.windowWidth),
    voiLUTFunction,
  };
}

const imageIdOf = (frame: Frame) => `wadors:${frame.address}`;

/** Loads a frame in the first of its forms that can be had and decoded. */
async function load(frame: Frame, requestType: Enums.RequestType): Promise<Types.IImage> {
  const imageId = imageIdOf(frame);
  for (;;) {
    const form = formOf(imageId);
    try {
      const image = await loadOnce(imageId, requestType);
      if (image.getPixelData().length) return image;
      // Some decoders give nothing for what is damaged, and no error either.
      cache.removeImageLoadObject(imageId);
      throw new Error('the decoder gave no pixels');
    } catch (failure) {
      if (formOf(imageId) === form && !(isOfForm(failure) && tryNextForm(imageId))) throw failure;
      // Cornerstone forgets what failed a moment later.
      await new Promise((resolve) => setTimeout(resolve));
    }
  }
}

/** Loads a large frame coarsely: the beginning of its code stream, at an eighth of its size. */
async function loadPreview(frame: Frame): Promise<Picture> {
  const address = `${frame.address.replace('/frames/', '/htj2k/')}?level=${previewLevel}`;
  const imageId = `wadors:${address}`;
  const { metadata } = formOf(imageIdOf(frame)) ?? frame;
  wadors.metaDataManager.add(imageId, { ...metadata } as never);
  const retrieveOptions = {
    imageQualityStatus: Enums.ImageQualityStatus.SUBRESOLUTION,
    decodeLevel: previewLevel,
  };
  const requestType = Enums.RequestType.Interaction;
  try {
    return pictureOf(
      await imageLoader.loadImage(imageId, { priority: 5, requestType, retrieveOptions }),
    );
  } finally {
    wadors.metaDataManager.remove(imageId);
  }
}

function loadOnce(imageId: string, requestType: Enums.RequestType): Promise<Types.IImage> {
  const options = { useRGBA: false, priority: 5, requestType, additionalDetails: { imageId } };
  const image = imageLoader.loadAndCacheImage(imageId, options);
  image.catch((failure: unknown) => failures.add(failure as object));
  return image;
}

/** Whether the same frame in another form may be had nevertheless. */
function isOfForm(failure: unknown): boolean {
  return !(failure instanceof XMLHttpRequest) || failure.status === 404 || failure.status === 406;
}

/** What `load` failed with. The loader rejects a second promise with it, which nobody can catch. */
const failures = new WeakSet<object>();

addEventListener('unhandledrejection', (event) => {
  if (failures.has(event.reason as object)) event.preventDefault();
});

/** The forms that are left to ask for, of the image ids that the loader knows, the oldest first. */
const registered = new Map<string, Form[]>();
const registeredLimit = 20_000;

const formOf = (imageId: string) => registered.get(imageId)?.[0];

/** Tells the loader the metadata of a frame; forgets the oldest, which nobody looks at any more. */
function register(frame: Frame): void {
  const imageId = imageIdOf(frame);
  registered.delete(imageId);
  registered.set(imageId, formsOf(frame.metadata));
  describe(imageId);
  if (registered.size <= registeredLimit) return;
  const [oldest = imageId] = registered.keys();
  registered.delete(oldest);
  wadors.metaDataManager.remove(oldest);
}

/** Whether there was another form. */
function tryNextForm(imageId: string): boolean {
  const forms = registered.get(imageId);
  if (!forms || forms.length < 2) return false;
  registered.set(imageId, forms.slice(1));
  describe(imageId);
  return true;
}

function describe(imageId: string): void {
  const form = formOf(imageId);
  // The loader types the metadata of its own JSON reader, which is the DICOM JSON Model.
  if (form) wadors.metaDataManager.add(imageId, form.metadata as never);
}

/** Frees the pixels of a frame, unless they are still on their way. */
function release(frame: Frame): void {
  const imageId = imageIdOf(frame);
  if (cache.getImage(imageId)) cache.removeImageLoadObject(imageId);
}

/**
 * One frame decoded, for a thumbnail.
 *
 * @throws Error says in a sentence why it cannot be had
 */
export async function loadPicture(frame: Frame): Promise<Picture> {
  start();
  if (!registered.has(imageIdOf(frame))) register(frame);
  return pictureOf(
    await load(frame, Enums.RequestType.Thumbnail).catch((failure: unknown) => {
      throw new Error(explain(failure, frame.metadata));
    }),
  );
}

function pictureOf(image: Types.IImage): Picture {
  return {
    pixels: image.getPixelData(),
    rows: image.rows,
    columns: image.columns,
    components: image.numberOfComponents ?? 1,
    window: { center: first(image.windowCenter), width: first(image.windowWidth) },
    invert: image.invert,
  };
}

const first = (value: number | number[]) => (Array.isArray(value) ? (value[0] ?? 0) : value);

/** A viewport for stacks of frames. */
export class StackView {
  private readonly current = signal<ViewState>(nothing);
  private readonly engine: RenderingEngine;
  private readonly viewport: StackViewport;
  private readonly resizing: ResizeObserver;
  private frames: readonly Frame[] = [];
  private queue: FrameQueue | null = null;
  /** False until the viewport has been given the frames, which needs one that can be decoded. */
  private stacked = false;
  /** True once window and camera are those of the frames. */
  private settled = false;
  /** Puts window and camera back; null once that is done, for a series that grew. */
  private restore: (() => void) | null = null;

  constructor(readonly element: HTMLDivElement) {
    start();
    engines += 1;
    this.engine = new RenderingEngine(`wado-${engines}`);
    this.engine.enableElement({ viewportId, type: Enums.ViewportType.STACK, element });
    this.viewport = this.engine.getViewport(viewportId) as StackViewport;
    element.addEventListener(Enums.Events.IMAGE_RENDERED, this.onRendered);
    this.resizing = new ResizeObserver(() => this.engine.resize(true, true));
    this.resizing.observe(element);
  }

  /** What the viewport shows, for those who draw around it. */
  get state(): ReadonlySignal<ViewState> {
    return this.current;
  }

  /** For browser tests: the objects of Cornerstone3D. */
  get internals() {
    return { engine: this.engine, viewport: this.viewport, cache };
  }

  /** Shows frames from the one at `index`; `keep` leaves window and camera, for a series that grew. */
  async show(frames: readonly Frame[], index: number, keep = false): Promise<void> {
    // One that grows again before it is shown keeps what it had before it grew.
    if (!keep) this.restore = null;
    else if (this.settled) this.restore = this.presentation();
    this.queue?.stop();
    this.frames = frames;
    this.stacked = this.settled = false;
    for (const frame of frames) register(frame);
    const before = this.restore ? this.current.value : nothing;
    this.current.value = { ...before, count: frames.length };
    const queue = this.startQueue();
    await this.go(index);
    if (queue === this.queue) queue.around(this.current.value.index);
  }

  /** Goes to a frame; the last one asked for wins. */
  async go(index: number): Promise<void> {
    const target = Math.max(0, Math.min(this.frames.length - 1, index));
    const frame = this.frames[target];
    if (!frame) return;
    const { frames } = this;
    this.update({ index: target, drawn: false, problem: '', original: '', preview: null });
    const isWanted = () => this.frames === frames && this.current.value.index === target;
    void this.preview(frame, isWanted);
    const late = setTimeout(() => {
      if (isWanted()) this.update({ problem: explainDelay(frame.metadata) });
    }, patienceMs);
    try {
      await load(frame, Enums.RequestType.Interaction);
      clearTimeout(late);
      if (!isWanted()) return;
      this.update({ problem: '' });
      await this.display(target);
      this.queue?.around(target);
    } catch (error) {
      clearTimeout(late);
      if (!isWanted()) return;
      this.update({ problem: explain(error, frame.metadata), original: originalOf(frame.address) });
    }
  }

  /** Moves by some frames. */
  scroll(steps: number): void {
    void this.go(this.current.value.index + steps);
  }

  setWindow({ center, width }: Window): void {
    if (!this.stacked) return;
    const { VOILUTFunction } = this.viewport.getProperties();
    const { toLowHighRange } = utilities.windowLevel;
    const voiRange = toLowHighRange(Math.max(1, width), center, VOILUTFunction);
    this.viewport.setProperties({ voiRange });
    this.viewport.render();
  }

  invert(): void {
    if (!this.stacked) return;
    this.viewport.setProperties({ invert: !this.viewport.getProperties().invert });
    this.viewport.render();
  }

  /** Moves the image by CSS pixels. */
  pan(x: number, y: number): void {
    if (!this.stacked) return;
    const [left, top] = this.viewport.getPan();
    this.viewport.setPan([left + x, top + y]);
    this.viewport.render();
  }

  /** Magnifies by a factor, about a point of the element or about its centre. */
  zoom(factor: number, at?: Types.Point2): void {
    if (!this.stacked) return;
    const { viewport } = this;
    const zoom = viewport.getZoom() * factor;
    if (zoom < 0.05 || zoom > 60) return;
    const fixed = at && viewport.canvasToWorld(at);
    viewport.setZoom(zoom);
    if (at && fixed) {
      const [x, y] = viewport.worldToCanvas(fixed);
      this.pan(at[0] - x, at[1] - y);
    }
    viewport.render();
  }

  /** The whole image in the element. */
  fit(): void {
    if (!this.stacked) return;
    this.viewport.resetCamera();
    this.viewport.render();
  }

  /** The window, the colours and the place that the image came with. */
  reset(): void {
    if (!this.stacked) return;
    this.viewport.resetProperties();
    this.fit();
  }

  /** Empties the view and frees what was decoded for it. */
  clear(): void {
    this.queue?.stop();
    for (const frame of this.frames) release(frame);
    this.frames = [];
    this.stacked = this.settled = false;
    this.current.value = nothing;
  }

  /** Frees the canvas and the decoded frames. */
  destroy(): void {
    this.clear();
    this.resizing.disconnect();
    this.element.removeEventListener(Enums.Events.IMAGE_RENDERED, this.onRendered);
    this.engine.destroy();
  }

  /** Shows the first frame coarsely if it is a large one; later ones may be magnified or moved. */
  private async preview(frame: Frame, isWanted: () => boolean): Promise<void> {
    if (this.stacked || !formOf(imageIdOf(frame))?.progressive) return;
    try {
      const preview = await loadPreview(frame);
      if (isWanted() && !this.stacked) this.update({ preview });
    } catch {
      // The frame itself is on its way, or says why not.
    }
  }

  private async display(index: number): Promise<void> {
    if (this.stacked) {
      await this.viewport.setImageIdIndex(index);
    } else {
      this.stacked = true;
      const { frames } = this;
      await this.viewport.setStack(frames.map(imageIdOf), index);
      if (this.frames === frames) this.settle();
    }
    this.viewport.render();
  }

  private startQueue(): FrameQueue {
    const { frames } = this;
    const bytes = frames[0] ? bytesOf(frames[0]) : 1;
    this.queue = new FrameQueue(
      frames.length,
      Math.floor(cacheBytes / bytes),
      async (index) => frames[index] && load(frames[index], Enums.RequestType.Prefetch),
      (loaded) => this.update({ loaded }),
    );
    return this.queue;
  }

  private settle(): void {
    this.restore?.();
    this.restore = null;
    this.settled = true;
  }

  /** Remembers window and camera; returns what puts them back. */
  private presentation(): () => void {
    const { voiRange, invert } = this.viewport.getProperties();
    const camera = this.viewport.getViewPresentation();
    return () => {
      this.viewport.setProperties({ ...(voiRange && { voiRange }), invert: invert ?? false });
      this.viewport.setViewPresentation(camera);
    };
  }

  private update(change: Partial<ViewState>): void {
    this.current.value = { ...this.current.value, ...change };
  }

  private readonly onRendered = (): void => {
    const image = this.stacked && this.viewport.getCornerstoneImage();
    if (!image) return;
    const { voiRange, invert, VOILUTFunction } = this.viewport.getProperties();
    const camera = this.viewport.getCamera();
    const scale = this.element.clientHeight / (2 * (camera.parallelScale ?? 1));
    const shown = this.viewport.getCurrentImageIdIndex();
    this.update({
      drawn: shown === this.current.value.index && !this.current.value.problem,
      preview: null,
      window: voiRange && !image.color ? windowOf(voiRange, VOILUTFunction) : null,
      invert: (invert ?? false) !== (image.invert ?? false),
      zoom: scale * (image.columnPixelSpacing || 1),
      edges: edgesOf(camera, this.frames[shown]?.metadata),
    });
  };
}

function windowOf(
  { lower, upper }: Types.VOIRange,
  voiLutFunction?: Enums.VOILUTFunctionType,
): Window {
  if (voiLutFunction === Enums.VOILUTFunctionType.LINEAR_EXACT)
    return { width: upper - lower, center: (lower + upper) / 2 };
  const { windowWidth, windowCenter } = utilities.windowLevel.toWindowLevel(lower, upper);
  return { width: windowWidth, center: windowCenter };
}
