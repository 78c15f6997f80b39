/** What came of conversions between transfer syntaxes, as the archive counts it. */

import { signal } from '@preact/signals';
import { ask } from './dicomweb';

const refreshMs = 5000;
const address = new URL('statistics/transcoding', document.baseURI).href;

export interface Conversion {
  transfer_syntax_uid: string;
  target_transfer_syntax_uid: string;
  succeeded: number;
  failed: number;
  frames: number;
  bytes_before: number;
  bytes_after: number;
  /** Null when none succeeded. */
  mean_ms: number | null;
}

export interface Failure {
  reason: string;
  transfer_syntax_uid: string;
  target_transfer_syntax_uid: string;
  count: number;
  last_at: string;
  example: { study_instance_uid: string; series_instance_uid: string; sop_instance_uid: string };
}

export interface Statistics {
  /** Null when the archive cannot tell now. */
  waiting: number | null;
  since: string;
  conversions: Conversion[];
  failures: Failure[];
}

/** Null until the first answer. */
export const statistics = signal<Statistics | null>(null);
export const problem = signal('');

/** Asks now and every few seconds while the page is visible; returns what stops it. */
export function follow(): () => void {
  const control = new AbortController();
  let timer = 0;
  const again = async () => {
    if (!document.hidden) await refresh(control.signal);
    if (!control.signal.aborted) timer = window.setTimeout(again, refreshMs);
  };
  void again();
  return () => {
    control.abort();
    clearTimeout(timer);
  };
}

async function refresh(signal: AbortSignal): Promise<void> {
  try {
    const response = await ask(address, { Accept: 'application/json' }, signal);
    const answer = (await response.json()) as Statistics;
    if (signal.aborted) return;
    problem.value = '';
    if (JSON.stringify(answer) !== JSON.stringify(statistics.value)) statistics.value = answer;
  } catch (error) {
    if (!signal.aborted) problem.value = (error as Error).message;
  }
}

/** The sum of a column. */
export function total(rows: Conversion[], column: 'succeeded' | 'failed'): number {
  return rows.reduce((sum, row) => sum + row[column], 0);
}

/** `1.4 MB`, in powers of ten. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
  let [value, unit] = [bytes, 0];
  while (value >= 1000 && unit < units.length - 1) [value, unit] = [value / 1000, unit + 1];
  return `${scaled(value, unit > 0)} ${units[unit]}`;
}

/** `35 ms`, `1.2 s`, `3.5 min`. */
export function formatDuration(ms: number | null): string {
  if (ms === null) return '–';
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return ms < 120_000 ? `${scaled(ms / 1000, true)} s` : `${scaled(ms / 60_000, true)} min`;
}

const scaled = (value: number, fraction: boolean) => value.toFixed(fraction && value < 100 ? 1 : 0);

/** The day and the minute of a moment, where the reader is. */
export function formatMoment(iso: string): string {
  const moment = new Date(iso);
  if (Number.isNaN(moment.getTime())) return iso;
  return moment.toLocaleString('sv-SE', { dateStyle: 'short', timeStyle: 'short' });
}
