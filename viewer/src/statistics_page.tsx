/** What became of images that viewers cannot show as they are stored: counts, sizes, failures. */

import { useEffect } from 'preact/hooks';
import { BackIcon, Logo } from './icons';
import { go, studiesLink, studyLink } from './route';
import {
  type Conversion,
  type Failure,
  follow,
  formatBytes,
  formatDuration,
  formatMoment,
  problem,
  type Statistics,
  statistics,
  total,
} from './statistics';
import './statistics.css';
import { shortName } from './transfer_syntax';

const home = studiesLink(new URLSearchParams());

export function StatisticsPage() {
  useEffect(follow, []);
  useEffect(() => {
    document.title = 'Conversions – wado';
    const leave = (event: KeyboardEvent) => {
      if (event.key === 'Escape') go(home);
    };
    addEventListener('keydown', leave);
    return () => removeEventListener('keydown', leave);
  }, []);
  const found = statistics.value;
  return (
    <div class="statistics">
      <header class="bar">
        <a class="back" href={home} title="Study list (Escape)">
          <BackIcon />
          <Logo />
        </a>
        <b>Conversions</b>
        {found && <span class="dim">{`since ${formatMoment(found.since)}`}</span>}
        {!found && !problem.value && <span class="dim">Asking the archive…</span>}
      </header>
      {problem.value && (
        <p class="alarm" role="alert">
          {problem.value} Trying again…
        </p>
      )}
      {found && <Report found={found} />}
    </div>
  );
}

function Report({ found }: { found: Statistics }) {
  const { conversions, failures, waiting } = found;
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reached by keys.
    <main tabIndex={0}>
      <dl class="sums">
        <Sum name="waiting" value={waiting} />
        <Sum name="made" value={total(conversions, 'succeeded')} />
        <Sum name="failed" value={total(conversions, 'failed')} alarming />
      </dl>
      {conversions.length ? (
        <>
          <Conversions rows={conversions} />
          <Failures rows={failures} />
        </>
      ) : (
        <Nothing waiting={waiting ?? 0} />
      )}
    </main>
  );
}

interface SumProperties {
  name: string;
  value: number | null;
  alarming?: boolean;
}

function Sum({ name, value, alarming = false }: SumProperties) {
  return (
    <div class={alarming && value ? 'alarming' : ''} data-test={name}>
      <dd>{value === null ? '?' : value.toLocaleString('en')}</dd>
      <dt>{name}</dt>
    </div>
  );
}

function Nothing({ waiting }: { waiting: number }) {
  return (
    <div class="notice">
      <h1>Nothing has been converted yet</h1>
      <p>
        {waiting
          ? 'Images are waiting for it.'
          : 'Images that viewers cannot show as they are stored are converted as they arrive; the originals stay as they are.'}
      </p>
    </div>
  );
}

function Conversions({ rows }: { rows: Conversion[] }) {
  const most = Math.max(1, ...rows.map((row) => row.succeeded + row.failed));
  return (
    <section class="figures">
      <h2>By transfer syntax</h2>
      <table data-test="conversions">
        <thead>
          <tr>
            <th>Stored</th>
            <th>Converted to</th>
            <th class="bar-column">Copies</th>
            <th class="number">Made</th>
            <th class="number">Failed</th>
            <th class="number">Frames</th>
            <th class="number">Before</th>
            <th class="number">After</th>
            <th class="number">Mean time</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <ConversionRow
              key={`${row.transfer_syntax_uid} ${row.target_transfer_syntax_uid}`}
              row={row}
              most={most}
            />
          ))}
        </tbody>
      </table>
    </section>
  );
}

function ConversionRow({ row, most }: { row: Conversion; most: number }) {
  const share = (amount: number) => `${(100 * amount) / most}%`;
  return (
    <tr>
      <td>
        <Syntax uid={row.transfer_syntax_uid} />
      </td>
      <td class="nowrap">
        <Syntax uid={row.target_transfer_syntax_uid} />
      </td>
      <td class="bar-column" aria-hidden="true">
        <span class="share" title={`${row.succeeded} made, ${row.failed} failed`}>
          <i class="made" style={{ width: share(row.succeeded) }} />
          <i class="failed" style={{ width: share(row.failed) }} />
        </span>
      </td>
      <td class="number">{row.succeeded.toLocaleString('en')}</td>
      <td class={row.failed ? 'number alarming' : 'number dim'}>
        {row.failed.toLocaleString('en')}
      </td>
      <td class="number">{row.frames.toLocaleString('en')}</td>
      <td class="number nowrap">{row.succeeded ? formatBytes(row.bytes_before) : '–'}</td>
      <td class="number nowrap">
        {row.succeeded ? formatBytes(row.bytes_after) : '–'}
        {row.succeeded > 0 && row.bytes_before > 0 && (
          <small class="dim">{` ${Math.round((100 * row.bytes_after) / row.bytes_before)} %`}</small>
        )}
      </td>
      <td class="number nowrap">{formatDuration(row.mean_ms)}</td>
    </tr>
  );
}

/** The name, with the UID for who points at it. */
function Syntax({ uid }: { uid: string }) {
  return <span title={uid}>{shortName(uid)}</span>;
}

function Failures({ rows }: { rows: Failure[] }) {
  if (!rows.length) return null;
  const most = Math.max(...rows.map(({ count }) => count));
  return (
    <section class="figures">
      <h2>What could not be converted</h2>
      <table data-test="failures">
        <thead>
          <tr>
            <th>Reason</th>
            <th>Stored</th>
            <th>Converted to</th>
            <th class="bar-column">Images</th>
            <th class="number">Count</th>
            <th>Last</th>
            <th>Example</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <FailureRow
              key={`${row.reason} ${row.transfer_syntax_uid} ${row.target_transfer_syntax_uid}`}
              row={row}
              most={most}
            />
          ))}
        </tbody>
      </table>
    </section>
  );
}

function FailureRow({ row, most }: { row: Failure; most: number }) {
  const { study_instance_uid: study, series_instance_uid: series } = row.example;
  return (
    <tr>
      <td class="reason">{row.reason}</td>
      <td>
        <Syntax uid={row.transfer_syntax_uid} />
      </td>
      <td>
        <Syntax uid={row.target_transfer_syntax_uid} />
      </td>
      <td class="bar-column" aria-hidden="true">
        <span class="share">
          <i class="failed" style={{ width: `${(100 * row.count) / most}%` }} />
        </span>
      </td>
      <td class="number alarming">{row.count.toLocaleString('en')}</td>
      <td class="nowrap dim">{formatMoment(row.last_at)}</td>
      <td class="nowrap">
        <a class="example" href={studyLink(study, series)} title={study}>
          Open study
        </a>
      </td>
    </tr>
  );
}
