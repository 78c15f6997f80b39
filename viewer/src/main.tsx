/** Starts the page: the study list at once, images and statistics when they are opened. */

import { signal } from '@preact/signals';
import { type ComponentType, render } from 'preact';
import { route } from './route';
import './style.css';
import { Worklist } from './worklist_page';

type StudyPage = ComponentType<{ study: string; series: string | undefined }>;

const studyPage = signal<StudyPage | null>(null);
const statisticsPage = signal<ComponentType | null>(null);
const failure = signal('');

async function loadStudyPage(): Promise<void> {
  try {
    studyPage.value = (await import('./study_page')).StudyPage;
  } catch {
    failure.value = 'The viewer could not be loaded. Reload the page to try again.';
  }
}

async function loadStatisticsPage(): Promise<void> {
  try {
    statisticsPage.value = (await import('./statistics_page')).StatisticsPage;
  } catch {
    failure.value = 'The page could not be loaded. Reload to try again.';
  }
}

function Statistics() {
  const Page = statisticsPage.value;
  if (Page) return <Page />;
  void loadStatisticsPage();
  return <p class="notice">{failure.value}</p>;
}

function App() {
  const { value } = route;
  if (value.page === 'studies') return <Worklist filter={value.filter} />;
  if (value.page === 'statistics') return <Statistics />;
  const Page = studyPage.value;
  if (Page) return <Page key={value.study} study={value.study} series={value.series} />;
  void loadStudyPage();
  return <p class="notice">{failure.value || 'Opening the study…'}</p>;
}

const root = document.getElementById('app');
if (root) render(<App />, root);
