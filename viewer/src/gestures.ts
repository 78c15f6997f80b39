/** Mouse, wheel and fingers on the image, by pointer events, so that no press waits for a second click. */

import type { Window } from './presets';

export type Tool = 'window' | 'scroll' | 'pan' | 'zoom';

/** What gestures act on; a `StackView` is one. */
export interface Gestured {
  readonly element: HTMLElement;
  readonly state: { readonly value: { index: number; window: Window | null; count: number } };
  go(index: number): Promise<void>;
  scroll(steps: number): void;
  setWindow(window: Window): void;
  pan(x: number, y: number): void;
  zoom(factor: number, at?: [number, number]): void;
}

interface Drag {
  tool: Tool;
  start: Point;
  /** The image and the window at the start: the way from there counts, however often it is drawn. */
  index: number;
  window: Window | null;
}

interface Point {
  x: number;
  y: number;
}

const zoomPerPixel = 1.008;
const wheelStep = 40;

/** Listens on the element of the view; `leftTool` says what the left button does. Returns the undoing. */
export function attachGestures(view: Gestured, leftTool: () => Tool): () => void {
  const { element } = view;
  const pointers = new Map<number, Point>();
  const control = new AbortController();
  let drag: Drag | null = null;
  let wheel = 0;

  const begin = (event: PointerEvent) => {
    element.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    const tool = toolOf(event, leftTool());
    const { index, window } = view.state.value;
    drag = { tool, start: { x: event.clientX, y: event.clientY }, index, window };
  };
  const move = (event: PointerEvent) => {
    const last = pointers.get(event.pointerId);
    if (!last || !drag) return;
    const now = { x: event.clientX, y: event.clientY };
    if (pointers.size === 2) pinch(view, pointers, event.pointerId, now);
    else if (pointers.size === 1) follow(view, drag, last, now);
    pointers.set(event.pointerId, now);
  };
  const end = (event: PointerEvent) => {
    pointers.delete(event.pointerId);
    drag = null;
  };
  const turn = (event: WheelEvent) => {
    event.preventDefault();
    const lines =
      event.deltaMode === WheelEvent.DOM_DELTA_LINE ? event.deltaY * wheelStep : event.deltaY;
    if (event.ctrlKey || event.metaKey) {
      view.zoom(Math.exp(-lines / 300), inside(element, event));
      return;
    }
    wheel = Math.sign(wheel) === Math.sign(lines) ? wheel + lines : lines;
    // A notch of a wheel is 100 or more and moves one image; a touchpad sends many small ones.
    const steps = Math.abs(lines) >= 100 ? Math.sign(lines) : Math.trunc(wheel / wheelStep);
    if (!steps) return;
    wheel = 0;
    view.scroll(steps);
  };

  const { signal } = control;
  element.addEventListener('pointerdown', begin, { signal });
  element.addEventListener('pointermove', move, { signal });
  element.addEventListener('pointerup', end, { signal });
  element.addEventListener('pointercancel', end, { signal });
  element.addEventListener('wheel', turn, { signal, passive: false });
  element.addEventListener('contextmenu', (event) => event.preventDefault(), { signal });
  return () => control.abort();
}

function toolOf(event: PointerEvent, left: Tool): Tool {
  if (event.button === 1) return 'pan';
  return event.button === 2 ? 'zoom' : left;
}

function follow(view: Gestured, drag: Drag, last: Point, now: Point): void {
  if (drag.tool === 'pan') view.pan(now.x - last.x, now.y - last.y);
  else if (drag.tool === 'zoom') view.zoom(zoomPerPixel ** (last.y - now.y));
  else if (drag.tool === 'scroll') followScroll(view, drag, now.y - drag.start.y);
  else followWindow(view, drag, { x: now.x - drag.start.x, y: now.y - drag.start.y });
}

/** The height of the element runs through the whole series, and 12 pixels at most are one image. */
function followScroll(view: Gestured, drag: Drag, way: number): void {
  const perPixel = Math.max(
    1 / 12,
    view.state.value.count / Math.max(1, view.element.clientHeight),
  );
  const index = drag.index + Math.round(way * perPixel);
  if (index !== view.state.value.index) void view.go(index);
}

/** To the right widens the window, upwards brightens the image; wide windows change faster. */
function followWindow(view: Gestured, { window }: Drag, way: Point): void {
  if (!window) return;
  const step = Math.max(0.05, window.width / 300);
  view.setWindow({
    width: Math.max(1, window.width + way.x * step),
    center: window.center + way.y * step,
  });
}

/** Two fingers: their distance zooms, their middle pans. */
function pinch(view: Gestured, pointers: Map<number, Point>, moved: number, now: Point): void {
  const last = pointers.get(moved);
  const other = [...pointers].find(([id]) => id !== moved)?.[1];
  if (!last || !other) return;
  const before = Math.hypot(last.x - other.x, last.y - other.y);
  const after = Math.hypot(now.x - other.x, now.y - other.y);
  view.pan((now.x - last.x) / 2, (now.y - last.y) / 2);
  const middle = { clientX: (now.x + other.x) / 2, clientY: (now.y + other.y) / 2 };
  if (before > 10) view.zoom(after / before, inside(view.element, middle));
}

function inside(element: HTMLElement, at: { clientX: number; clientY: number }): [number, number] {
  const { left, top } = element.getBoundingClientRect();
  return [at.clientX - left, at.clientY - top];
}
