import { defineConfig, loadEnv, type Plugin } from 'vite';

const stub = new URL('./src/stub.ts', import.meta.url).pathname;
const loader = '@cornerstonejs/dicom-image-loader';
const codecs = [
  'codec-charls/decodewasmjs',
  'codec-libjpeg-turbo-8bit/decodewasmjs',
  'codec-openjpeg/decodewasmjs',
  'codec-openjph/wasmjs',
  'codec-libjxl/decodewasmjs',
];

/**
 * Names the chunks of the image page in the HTML, inert, so that the study list can preload them
 * when a row is hovered: their file names carry a hash that the list cannot know.
 */
function announceImageChunks(): Plugin {
  return {
    name: 'announce-image-chunks',
    apply: 'build',
    transformIndexHtml: {
      order: 'post',
      handler(_html, { bundle }) {
        const names = new Set(['study_page', 'cornerstone']);
        return Object.values(bundle ?? {})
          .filter((output) => output.type === 'chunk' && names.has(output.name))
          .map((output) => ({
            tag: 'link',
            attrs: { rel: 'x-image-chunk', href: `./${output.fileName}` },
            injectTo: 'head' as const,
          }));
      },
    },
  };
}

export default defineConfig(({ mode }) => ({
  base: './',
  plugins: [announceImageChunks()],
  resolve: {
    alias: [
      { find: /^(xmlbuilder2|fs|path)$/, replacement: stub },
      { find: /^@kitware\/vtk\.js\/IO\/.*/, replacement: stub },
    ],
  },
  build: {
    outDir: '../src/wado/viewer',
    emptyOutDir: true,
    target: 'es2022',
    chunkSizeWarningLimit: 5000,
  },
  worker: { format: 'es' },
  optimizeDeps: {
    exclude: [loader],
    include: ['dicom-parser', ...codecs.map((codec) => `${loader} > @cornerstonejs/${codec}`)],
  },
  server: {
    proxy: { '/dicomweb': loadEnv(mode, '.', 'WADO_').WADO_URL ?? 'http://127.0.0.1:8080' },
  },
}));
