/** Line icons of 20 by 20, drawn for this viewer. */

import type { ComponentChildren } from 'preact';

function Icon({ children }: { children: ComponentChildren }) {
  return (
    <svg class="icon" viewBox="0 0 20 20" width="20" height="20" aria-hidden="true">
      {children}
    </svg>
  );
}

export function Logo() {
  return (
    <span class="logo">
      <svg viewBox="0 0 32 32" width="22" height="22" aria-hidden="true">
        <path class="back" d="m16 17 11 5-11 5-11-5z" />
        <path class="middle" d="m16 11 11 5-11 5-11-5z" />
        <path class="front" d="m16 5 11 5-11 5-11-5z" />
      </svg>
      wado
    </span>
  );
}

export const BackIcon = () => (
  <Icon>
    <path d="M12 4.5 6.5 10l5.5 5.5" />
  </Icon>
);

export const WindowIcon = () => (
  <Icon>
    <circle cx="10" cy="10" r="6.5" />
    <path d="M10 3.5a6.5 6.5 0 0 1 0 13z" class="solid" />
  </Icon>
);

export const ScrollIcon = () => (
  <Icon>
    <path d="m10 3 7 3.5-7 3.5-7-3.5zM3 10l7 3.5 7-3.5M3 13.5 10 17l7-3.5" />
  </Icon>
);

export const PanIcon = () => (
  <Icon>
    <path d="M10 2.5v15M2.5 10h15M7.8 4.7 10 2.5l2.2 2.2M7.8 15.3l2.2 2.2 2.2-2.2M4.7 7.8 2.5 10l2.2 2.2M15.3 7.8l2.2 2.2-2.2 2.2" />
  </Icon>
);

export const ZoomIcon = () => (
  <Icon>
    <circle cx="8.5" cy="8.5" r="5" />
    <path d="m12.2 12.2 4.8 4.8M8.5 6.3v4.4M6.3 8.5h4.4" />
  </Icon>
);

export const InvertIcon = () => (
  <Icon>
    <rect x="3.5" y="3.5" width="13" height="13" rx="1.5" />
    <path d="M3.5 16.5v-13l13 13z" class="solid" />
  </Icon>
);

export const FitIcon = () => (
  <Icon>
    <path d="M3 7V3h4M13 3h4v4M17 13v4h-4M7 17H3v-4" />
    <rect x="6.5" y="6.5" width="7" height="7" rx="1" />
  </Icon>
);

export const ResetIcon = () => (
  <Icon>
    <path d="M4.2 8.2A6.3 6.3 0 1 1 3.7 11M4 3.8v4.4h4.4" />
  </Icon>
);

export const PlayIcon = () => (
  <Icon>
    <circle cx="10" cy="10" r="7" />
    <path d="m8.3 6.9 5 3.1-5 3.1z" class="solid" />
  </Icon>
);

export const UnseenIcon = () => (
  <Icon>
    <rect x="3" y="4" width="14" height="12" rx="1.5" />
    <path d="m3 16 14-12" />
  </Icon>
);

export const StatisticsIcon = () => (
  <Icon>
    <path d="M3 17h14M5.5 14V9.5M10 14V4M14.5 14V7" />
  </Icon>
);
