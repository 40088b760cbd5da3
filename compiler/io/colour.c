/* Colours for classes and for numbers, chosen in OKLab (B. Ottosson, 2020), where distances are as the eye sees them,
 * and brought into sRGB by lowering the chroma until they fit. */
#include "io/io.h"

#include <math.h>

static const double turn = 6.283185307179586;

/* Linear sRGB of lightness L (0 … 1), chroma C and hue h (turns). */
static void linear_of(double L, double C, double h, double rgb[3]) {
  double a = C * cos(h * turn), b = C * sin(h * turn);
  double l = L + 0.3963377774 * a + 0.2158037573 * b, m = L - 0.1055613458 * a - 0.0638541728 * b,
         s = L - 0.0894841775 * a - 1.2914855480 * b;
  l = l * l * l, m = m * m * m, s = s * s * s;
  rgb[0] = 4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s;
  rgb[1] = -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s;
  rgb[2] = -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s;
}

static uint8_t byte_of(double linear) {
  double x = linear < 0 ? 0 : linear > 1 ? 1 : linear;
  double encoded = x <= 0.0031308 ? 12.92 * x : 1.055 * pow(x, 1 / 2.4) - 0.055;
  return (uint8_t)(encoded * 255 + 0.5);
}

static Rgb from_oklch(double L, double C, double h) {
  double rgb[3];
  for (;; C -= 0.005) {
    linear_of(L, C, h, rgb);
    double low = fmin(rgb[0], fmin(rgb[1], rgb[2])), high = fmax(rgb[0], fmax(rgb[1], rgb[2]));
    if (C <= 0 || (low >= 0 && high <= 1)) break;
  }
  return (Rgb){byte_of(rgb[0]), byte_of(rgb[1]), byte_of(rgb[2])};
}

/* Hue and lightness follow the two-dimensional sequence that fills a square most evenly (M. Roberts' R2), so that the
 * first n classes lie as far from each other as n can, whatever n is. */
Rgb colour_of_class(int64_t class) {
  if (class == 0) return from_oklch(0.28, 0, 0);
  double i = (double)(class % 100003), hue = 0.31 + i * 0.7548776662466927, light = i * 0.5698402909980532;
  return from_oklch(0.48 + 0.42 * (light - floor(light)), 0.16, hue - floor(hue));
}

Rgb colour_of_number(double x) {
  x = !(x > 0) ? 0 : x > 1 ? 1 : x;
  return from_oklch(0.20 + 0.73 * x, 0.08 + 0.28 * x * (1 - x) + 0.07 * x, 0.83 - 0.54 * x);
}
