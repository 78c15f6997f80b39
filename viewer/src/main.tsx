/** Starts the page: the study list at once, the images when a study is opened. */

import { signal } from '@preact/signals';
import { type ComponentType, render } from 'preact';
import { route } from './route';
import './style.css';
import { Worklist } from './worklist_page';

type StudyPage = ComponentType<{ study: string; series: string | undefined }>;

const studyPage = signal<StudyPage | null>(null);
const failure = signal('');

async function loadStudyPage(): Promise<void> {
  try {
    studyPage.value = (await import('./study_page')).StudyPage;
  } catch {
    failure.value = 'The viewer could not be loaded. Reload the page to try again.';
  }
}

function App() {
  const { value } = route;
  if (value.page === 'studies') return <Worklist filter={value.filter} />;
  const Page = studyPage.value;
  if (Page) return <Page key={value.study} study={value.study} series={value.series} />;
  void loadStudyPage();
  return <p class="notice">{failure.value || 'Opening the study…'}</p>;
}

const root = document.getElementById('app');
if (root) render(<App />, root);
