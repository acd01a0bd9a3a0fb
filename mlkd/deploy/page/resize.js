// Pillow's bilinear resampling with antialiasing, bit for bit (version 13): a triangle filter as wide as a pixel of the
// result, along the rows and the columns, with coefficients and sums in fixed point.

const BITS = 22;

// For each pixel of the result, the first source pixel and the coefficients of it and those after it.
function coefficients(length, size) {
  const scale = length / size;
  const support = Math.max(scale, 1);
  return Array.from({ length: size }, (_, k) => {
    const center = (k + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const last = Math.min(length, Math.trunc(center + support + 0.5));
    const weights = [];
    for (let x = first; x < last; x++) {
      weights.push(Math.max(0, 1 - Math.abs((x - center + 0.5) * (1 / support))));
    }
    const sum = weights.reduce((total, weight) => total + weight, 0);
    return { first, weights: weights.map((weight) => Math.trunc(0.5 + (weight / sum) * 2 ** BITS)) };
  });
}

// One pass: `lines` lines of `length` pixels of three channels, of which `size` pixels each are written to `target`.
// `step` and `stride` are the distances of pixels and lines in the source, `targetStep` and `targetStride` in the target.
function resampleLines(source, lines, length, step, stride, size, targetStep, targetStride, target) {
  coefficients(length, size).forEach(({ first, weights }, k) => {
    for (let line = 0; line < lines; line++) {
      for (let channel = 0; channel < 3; channel++) {
        let sum = 2 ** (BITS - 1);
        let index = line * stride + first * step + channel;
        for (const weight of weights) {
          sum += source[index] * weight;
          index += step;
        }
        target[line * targetStride + k * targetStep + channel] = Math.min(255, sum >> BITS);
      }
    }
  });
  return target;
}

// Pixels (height, width, 4) in RGBA to (size, size, 3) in RGB, uint8, without keeping the aspect ratio.
export function resize(pixels, width, height, size) {
  const result = new Uint8Array(size * size * 3);
  if (height > size && height - size > 2 * (width - size)) { // an image much higher than wide: the columns first
    const columns = new Uint8Array(size * width * 3);
    resampleLines(pixels, width, height, 4 * width, 4, size, 3 * width, 3, columns);
    return resampleLines(columns, size, width, 3, 3 * width, size, 3, 3 * size, result);
  }
  const rows = new Uint8Array(height * size * 3);
  resampleLines(pixels, height, width, 4, 4 * width, size, 3, 3 * size, rows);
  return resampleLines(rows, size, height, 3 * size, 3, size, 3 * size, 3, result);
}
