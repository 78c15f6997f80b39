/**
 * Stands in for modules that are named and never called: the XML and mesh readers of vtk.js, and
 * `fs` and `path`, which the codecs load under node only.
 *
 * `xmlbuilder2` extends a class of node's `events`, which a browser build replaces by nothing: the
 * bundle builds and then fails on load. The Vite configuration points those imports here.
 */
export const create = (): never => {
  throw new Error('XML files are not read by the viewer.');
};
export const convert = create;
export const decompressSync = create;
export default {};
