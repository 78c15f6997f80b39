/** The bar beside the image: where in the series one is, how much of it is loaded, and a handle. */

import type { StackView } from './cornerstone';

export function Scrollbar({ view }: { view: StackView }) {
  const { index, count, loaded } = view.state.value;
  if (count < 2) return null;
  const goTo = (event: PointerEvent) => {
    const { top, height } = (event.currentTarget as HTMLElement).getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientY - top) / height));
    const target = Math.round(share * (count - 1));
    if (target !== view.state.value.index) void view.go(target);
  };
  return (
    <div
      class="scrollbar"
      role="slider"
      tabIndex={-1}
      aria-label="Image"
      aria-orientation="vertical"
      aria-valuemin={1}
      aria-valuemax={count}
      aria-valuenow={index + 1}
      onPointerDown={(event) => {
        event.currentTarget.setPointerCapture(event.pointerId);
        goTo(event);
      }}
      onPointerMove={(event) => {
        if (event.buttons) goTo(event);
      }}
    >
      <i class="loaded" style={{ height: `${(100 * loaded) / count}%` }} />
      <i class="thumb" style={{ top: `${(100 * index) / (count - 1)}%` }} />
    </div>
  );
}
