/** An opened study: series on the left, tools above, one stack of images. */

import { useEffect, useLayoutEffect, useMemo, useRef } from 'preact/hooks';
import type { StackView } from './cornerstone';
import { formatDate, formatName, Tag, text } from './dicom_json';
import { attachGestures } from './gestures';
import { BackIcon, Logo } from './icons';
import { onKey } from './keys';
import { Overlay } from './overlay';
import { go, studiesLink, studyLink } from './route';
import { Scrollbar } from './scrollbar';
import { Sentence } from './sentence';
import { SeriesList } from './series_list';
import { Study } from './study';
import './study.css';
import { drawThumbnail } from './thumbnail';
import { leftTool, Toolbar } from './toolbar';
import { Choice, Player } from './video';

const loading = import('./cornerstone');

interface Properties {
  study: string;
  series: string | undefined;
}

/** One study; the caller gives each its own key. */
export function StudyPage({ study: uid, series }: Properties) {
  const study = useMemo(() => new Study(uid), [uid]);
  useEffect(() => study.follow(), [study]);
  useEffect(() => {
    const listen = (event: KeyboardEvent) => onKey(study, event);
    addEventListener('keydown', listen);
    return () => removeEventListener('keydown', listen);
  }, [study]);
  const { first } = study;
  useEffect(() => {
    if (first && !series) go(studyLink(uid, first), true);
  }, [first, series, uid]);
  // The metadata do not wait for Cornerstone.
  useEffect(() => {
    if (series) study.images(series).catch(() => undefined);
  }, [study, series]);
  return (
    <div class="study">
      <Header study={study} />
      <SeriesList study={study} />
      <section class="stage">
        <Toolbar study={study} />
        <Stack study={study} series={series} />
      </section>
    </div>
  );
}

function Header({ study }: { study: Study }) {
  const value = (tag: string) => text(study.attributes.value, tag);
  const name = formatName(value(Tag.patientName));
  useEffect(() => {
    document.title = name ? `${name} – wado` : 'wado';
  }, [name]);
  const born = [value(Tag.patientSex), formatDate(value(Tag.patientBirthDate))];
  return (
    <header class="bar">
      <a class="back" href={studiesLink(new URLSearchParams())} title="Study list (Escape)">
        <BackIcon />
        <Logo />
      </a>
      <b class="patient">{name}</b>
      <span class="dim">{value(Tag.patientID)}</span>
      <span class="dim">{born.filter(Boolean).join(' · ')}</span>
      <span class="grow" />
      <span class="description">{value(Tag.studyDescription)}</span>
      <span class="dim">{formatDate(value(Tag.studyDate))}</span>
    </header>
  );
}

function Stack({ study, series }: { study: Study; series: string | undefined }) {
  const element = useRef<HTMLDivElement>(null);
  useEffect(() => (element.current ? mount(study, element.current) : undefined), [study]);
  const view = study.view.value;
  useEffect(() => {
    if (series) void study.show(series);
  }, [study, series, view]);
  const video = study.videos.value[study.video.value ?? -1];
  return (
    <div class="viewport">
      <div class="canvas" ref={element} data-tool={leftTool.value} />
      {view && <Preview view={view} />}
      {video && <Player key={video.address} video={video} />}
      {view && <Overlay study={study} view={view} />}
      {!video && <Reason study={study} />}
      {view && !video && <Scrollbar view={view} />}
      <Choice study={study} />
    </div>
  );
}

/** A large image, coarsely, until it is there. */
function Preview({ view }: { view: StackView }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const { preview } = view.state.value;
  useLayoutEffect(() => {
    if (preview && canvas.current) drawThumbnail(preview, canvas.current);
  }, [preview]);
  if (!preview) return null;
  return <canvas ref={canvas} class="preview" width={preview.columns} height={preview.rows} />;
}

/** Why there is no image: of the series, or of this frame. */
function Reason({ study }: { study: Study }) {
  const state = study.view.value?.state.value;
  if (study.sentence.value) return <Sentence text={study.sentence.value} />;
  return state?.problem ? <Sentence text={state.problem} original={state.original} /> : null;
}

/** Makes the viewport in the element as soon as Cornerstone is there; returns the undoing. */
function mount(study: Study, element: HTMLDivElement): () => void {
  let undo = () => {};
  let gone = false;
  const make = async () => {
    const { StackView } = await loading;
    if (gone) return;
    const view = new StackView(element);
    const detach = attachGestures(view, () => leftTool.value);
    study.view.value = view;
    exposeForTests(view.internals);
    undo = () => {
      detach();
      exposeForTests(undefined);
      study.view.value = null;
      view.destroy();
    };
  };
  make().catch(() => {
    study.sentence.value = 'The image part of the viewer could not be loaded. Reload the page.';
  });
  return () => {
    gone = true;
    undo();
  };
}

/** Browser tests ask the page with `?test=1` for what it draws with. */
function exposeForTests(internals: object | undefined): void {
  const isTest = new URLSearchParams(location.search).has('test');
  if (isTest) Object.assign(window, { __viewer: internals });
}
