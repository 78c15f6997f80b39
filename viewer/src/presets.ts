/** Windows for CT in Hounsfield units, on the number keys. */

export interface Window {
  center: number;
  width: number;
}

export interface Preset extends Window {
  key: string;
  name: string;
}

export const ctPresets: readonly Preset[] = [
  { key: '1', name: 'Soft tissue', center: 40, width: 400 },
  { key: '2', name: 'Lung', center: -600, width: 1500 },
  { key: '3', name: 'Bone', center: 480, width: 2500 },
  { key: '4', name: 'Brain', center: 40, width: 80 },
  { key: '5', name: 'Mediastinum', center: 50, width: 350 },
  { key: '6', name: 'Liver', center: 90, width: 150 },
  { key: '7', name: 'Angiography', center: 300, width: 600 },
  { key: '8', name: 'Subdural', center: 75, width: 215 },
  { key: '9', name: 'Stroke', center: 35, width: 35 },
];
