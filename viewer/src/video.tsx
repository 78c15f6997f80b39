/** Videos: played by the browser, from the archive's own player address. */

import { useEffect, useRef, useState } from 'preact/hooks';
import { Tag, text } from './dicom_json';
import { statedReason } from './dicomweb';
import { originalOf } from './explain';
import { Sentence } from './sentence';
import type { Video } from './series';
import type { Study } from './study';
import { shortName } from './transfer_syntax';

const retryMs = 5000;

/** What keeps a video from playing; `later` when it is worth asking again. */
interface Obstacle {
  sentence: string;
  later: boolean;
  /** Whether the archive gives it all the same: what can't be done is to play it. */
  given: boolean;
}

/** One video with the browser's controls; the caller gives each its own key. */
export function Player({ video }: { video: Video }) {
  const element = useRef<HTMLVideoElement>(null);
  const [obstacle, setObstacle] = useState<Obstacle | null>(null);
  const given = useRef(false);
  useEffect(() => {
    if (!obstacle?.later) return undefined;
    const timer = setTimeout(() => element.current?.load(), retryMs);
    return () => clearTimeout(timer);
  }, [obstacle]);
  const onError = async () => {
    const found = await whatIsWrong(video);
    const wasGiven = given.current;
    given.current = found.given;
    // It may have become ready since the player asked for it.
    if (found.given && !wasGiven) element.current?.load();
    else setObstacle(found);
  };
  return (
    <div class="player">
      {/* biome-ignore lint/a11y/useMediaCaption: what modalities record comes without captions. */}
      <video
        ref={element}
        src={video.address}
        hidden={obstacle !== null}
        controls
        playsInline
        preload="metadata"
        onLoadedMetadata={() => setObstacle(null)}
        onError={onError}
      />
      {obstacle && (
        <Sentence
          text={obstacle.sentence}
          original={obstacle.later ? '' : originalOf(video.address)}
        />
      )}
    </div>
  );
}

/** Asks for the first byte, as a player tells nobody what the archive answered. */
async function whatIsWrong({ address, metadata }: Video): Promise<Obstacle> {
  const name = shortName(text(metadata, Tag.availableTransferSyntaxUID));
  try {
    const response = await fetch(address, { headers: { Range: 'bytes=0-0' } });
    return obstacleOf(response, statedReason(await response.text()), `This video (${name})`);
  } catch {
    const sentence = 'The archive does not answer. Trying again…';
    return { sentence, later: true, given: false };
  }
}

function obstacleOf(response: Response, reason: string, subject: string): Obstacle {
  if (response.ok) {
    const sentence = `${subject} is of a kind that this browser cannot play.`;
    return { sentence, later: false, given: true };
  }
  if (response.status === 503) {
    const sentence = `${subject} is being converted for browsers. It is shown here as soon as it is ready.`;
    return { sentence, later: true, given: false };
  }
  const why = reason || `(the archive answered ${response.status})`;
  return { sentence: `${subject} cannot be played ${why}.`, later: false, given: false };
}

/** Leads from one video of the series to the next, and to its images, where there are several. */
export function Choice({ study }: { study: Study }) {
  const videos = study.videos.value;
  const images = study.view.value?.state.value.count ?? 0;
  const entries: (number | null)[] = [...(images ? [null] : []), ...videos.keys()];
  if (!videos.length || (entries.length < 2 && !study.remark.value)) return null;
  return (
    <div class="choice">
      {entries.length > 1 &&
        entries.map((entry) => (
          <button
            key={entry}
            type="button"
            aria-pressed={study.video.value === entry}
            onClick={() => {
              study.video.value = entry;
            }}
          >
            {entry === null ? 'Images' : `Video ${entry + 1}`}
          </button>
        ))}
      {study.video.value !== null && study.remark.value && <span>{study.remark.value}</span>}
    </div>
  );
}
