/** What the keys do while a study is open. */

import type { StackView } from './cornerstone';
import type { Tool } from './gestures';
import { ctPresets } from './presets';
import { go, studiesLink, studyLink } from './route';
import type { Study } from './study';
import { isCT, leftTool, showHelp } from './toolbar';

type Action = (view: StackView, study: Study) => void;

const tool = (name: Tool) => () => {
  leftTool.value = name;
};

const actions: Record<string, Action> = {
  ArrowUp: (stack) => stack.scroll(-1),
  ArrowDown: (stack) => stack.scroll(1),
  PageUp: (stack) => stack.scroll(-10),
  PageDown: (stack) => stack.scroll(10),
  Home: (stack) => void stack.go(0),
  End: (stack) => void stack.go(Number.MAX_SAFE_INTEGER),
  ArrowLeft: (_, study) => stepSeries(study, -1),
  ArrowRight: (_, study) => stepSeries(study, 1),
  w: tool('window'),
  s: tool('scroll'),
  p: tool('pan'),
  z: tool('zoom'),
  i: (stack) => stack.invert(),
  f: (stack) => stack.fit(),
  r: (stack) => stack.reset(),
  '+': (stack) => stack.zoom(1.25),
  '-': (stack) => stack.zoom(0.8),
};

/** Does what the key says for the study. */
export function onKey(study: Study, event: KeyboardEvent): void {
  const typing =
    event.target instanceof HTMLSelectElement || event.target instanceof HTMLInputElement;
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  // A video that has the focus is played and wound by its own keys.
  if (event.target instanceof HTMLVideoElement && !['Escape', '?'].includes(event.key)) return;
  if (act(study, event.key)) event.preventDefault();
}

/** Whether the key means something here. */
function act(study: Study, key: string): boolean {
  if (key === '?') showHelp.value = !showHelp.value;
  else if (key === 'Escape') leave();
  else if (study.video.value !== null && key === ' ') toggleVideo();
  else return actOnView(study, key);
  return true;
}

function leave(): void {
  if (showHelp.value) showHelp.value = false;
  else go(studiesLink(new URLSearchParams()));
}

function toggleVideo(): void {
  const video = document.querySelector('video');
  if (video?.paused) void video.play().catch(() => undefined);
  else video?.pause();
}

function actOnView(study: Study, key: string): boolean {
  const stack = study.view.value;
  if (!stack) return false;
  const preset = isCT(study) && ctPresets.find((candidate) => candidate.key === key);
  if (preset) stack.setWindow(preset);
  const action = actions[key];
  action?.(stack, study);
  return Boolean(preset || action);
}

function stepSeries(study: Study, step: 1 | -1): void {
  const series = study.neighbour(step);
  if (series) go(studyLink(study.uid, series), true);
}
