/** The tools above the image: what the left button does, windows, invert, fit, reset, help. */

import { signal } from '@preact/signals';
import type { ComponentChildren } from 'preact';
import { Tag, text } from './dicom_json';
import type { Tool } from './gestures';
import { FitIcon, InvertIcon, PanIcon, ResetIcon, ScrollIcon, WindowIcon, ZoomIcon } from './icons';
import { ctPresets } from './presets';
import type { Study } from './study';

export const showHelp = signal(false);

/** What the left button does. */
export const leftTool = signal<Tool>(matchMedia('(pointer: coarse)').matches ? 'scroll' : 'window');

/** Whether the presets fit, which are in Hounsfield units. */
export function isCT(study: Study): boolean {
  return text(study.series, Tag.modality) === 'CT';
}

const tools: [tool: Tool, name: string, icon: ComponentChildren, key: string][] = [
  ['window', 'Window', <WindowIcon key="icon" />, 'W'],
  ['scroll', 'Scroll', <ScrollIcon key="icon" />, 'S'],
  ['pan', 'Pan', <PanIcon key="icon" />, 'P'],
  ['zoom', 'Zoom', <ZoomIcon key="icon" />, 'Z'],
];

export function Toolbar({ study }: { study: Study }) {
  const stack = study.view.value;
  return (
    <div class="toolbar" role="toolbar" aria-label="Tools">
      {tools.map(([tool, name, icon, key]) => (
        <button
          key={tool}
          type="button"
          aria-pressed={leftTool.value === tool}
          title={`${name} with the left button (${key})`}
          onClick={() => {
            leftTool.value = tool;
          }}
        >
          {icon}
          <span>{name}</span>
        </button>
      ))}
      <i class="divider" />
      <Action name="Invert" hint="Invert (I)" icon={<InvertIcon />} run={() => stack?.invert()} />
      <Action
        name="Fit"
        hint="Fit into the window (F)"
        icon={<FitIcon />}
        run={() => stack?.fit()}
      />
      <Action name="Reset" hint="Reset (R)" icon={<ResetIcon />} run={() => stack?.reset()} />
      {isCT(study) && <Presets study={study} />}
      <span class="grow" />
      <button
        type="button"
        title="Mouse and keys (?)"
        aria-expanded={showHelp.value}
        onClick={() => {
          showHelp.value = !showHelp.value;
        }}
      >
        <b>?</b>
      </button>
      {showHelp.value && <Help />}
    </div>
  );
}

interface ActionProperties {
  name: string;
  hint: string;
  icon: ComponentChildren;
  run: () => void;
}

function Action({ name, hint, icon, run }: ActionProperties) {
  return (
    <button type="button" title={hint} onClick={run}>
      {icon}
      <span>{name}</span>
    </button>
  );
}

function Presets({ study }: { study: Study }) {
  const choose = (select: HTMLSelectElement) => {
    const preset = ctPresets.find(({ key }) => key === select.value);
    if (preset) study.view.value?.setWindow(preset);
    select.value = '';
    select.blur();
  };
  return (
    <select aria-label="CT windows" onChange={(event) => choose(event.currentTarget)}>
      <option value="">CT window…</option>
      {ctPresets.map(({ key, name, center, width }) => (
        <option key={key} value={key}>
          {key} {name} ({width} / {center})
        </option>
      ))}
    </select>
  );
}

const help: [what: string, how: string][] = [
  ['Wheel, ↑ ↓', 'scroll; Page ↑ ↓ by ten, Home, End'],
  ['← →', 'series before, series after'],
  ['Left button', 'the chosen tool: W S P Z'],
  ['Middle button', 'pan'],
  ['Right button, Ctrl + wheel, + −', 'zoom'],
  ['1 … 9', 'windows for CT'],
  ['I  F  R', 'invert, fit, reset'],
  ['Escape', 'study list'],
];

function Help() {
  return (
    <dl class="help">
      {help.map(([what, how]) => (
        <div key={what}>
          <dt>{what}</dt>
          <dd>{how}</dd>
        </div>
      ))}
    </dl>
  );
}
