/** Loads the frames of a series in the background, the nearest to the shown one first. */

const concurrency = 4;

export class FrameQueue {
  private waiting = new Set<number>();
  private running = 0;
  private centre = 0;
  private done = 0;

  /**
   * @param length how many frames there are
   * @param limit how many of them memory allows
   * @param load loads one; its failure is told where the frame is shown, so here it is passed over
   * @param progress called after each with the number that is through
   */
  constructor(
    length: number,
    private readonly limit: number,
    private readonly load: (index: number) => Promise<unknown>,
    private readonly progress: (done: number) => void,
  ) {
    for (let index = 0; index < length; index++) this.waiting.add(index);
  }

  /** Starts, or goes on from another frame. */
  around(index: number): void {
    this.centre = index;
    while (this.running < concurrency && this.startOne());
  }

  /** Starts nothing more. */
  stop(): void {
    this.waiting.clear();
  }

  private startOne(): boolean {
    if (this.done + this.running >= this.limit) return false;
    const next = this.nearest();
    if (next === undefined) return false;
    this.waiting.delete(next);
    this.running += 1;
    void this.run(next);
    return true;
  }

  private async run(index: number): Promise<void> {
    try {
      await this.load(index);
    } catch {
      // Told when the frame is shown.
    }
    this.running -= 1;
    this.done += 1;
    this.progress(this.done);
    this.around(this.centre);
  }

  private nearest(): number | undefined {
    let best: number | undefined;
    let distance = Number.POSITIVE_INFINITY;
    for (const index of this.waiting) {
      const away = Math.abs(index - this.centre);
      if (away < distance) [best, distance] = [index, away];
    }
    return best;
  }
}
