// Figures of the drivers (bench.mjs, rooms.mjs): medians, ratios of pairs, and tables.

export const known = (value) => Number.isFinite(value);
export const whole = (value) => Math.round(value).toLocaleString("en-US");
export const times = (value) => (known(value) ? `${value.toFixed(2)}x` : "-");
export const spread = ({ value, lowest, highest }) =>
  known(value) && lowest < highest ? `${times(value)} (${lowest.toFixed(2)}-${highest.toFixed(2)})` : times(value);

export function median(values) {
  const sorted = values.filter(known).sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

// Of each figure and peer the median of the rounds' ratios, with the lowest and the highest. A pair is of the same
// round. `runs`: system -> figure -> the values of the rounds.
export function ratios(runs, figures, ours) {
  const peers = Object.keys(runs).filter((system) => system !== ours);
  return figures.flatMap((figure) =>
    peers.map((peer) => {
      const of = (system) => runs[system]?.[figure] ?? [];
      const pairs = of(ours).map((value, round) => value / of(peer)[round]).filter(known);
      return { figure, peer, value: median(pairs), lowest: Math.min(...pairs), highest: Math.max(...pairs) };
    }));
}

export function table(title, rows) {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  const lines = rows.map((row) =>
    row.map((text, n) => (n === 0 ? text.padEnd(widths[n]) : text.padStart(widths[n]))).join("  ").trimEnd());
  console.log([``, title, ...lines].join("\n"));
}
