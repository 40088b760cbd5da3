/* Pieces of JSON. */
#include "io/json.h"

#include <math.h>

/* Bytes of the UTF-8 character at s, of two bytes or more; 0: none is there. */
static size_t utf8_length(const unsigned char *s) {
  static const struct {
    unsigned char mask, lead;
    unsigned smallest;
  } forms[] = {{0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};
  for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
    if ((s[0] & forms[i].mask) != forms[i].lead) continue;
    unsigned code = s[0] & (unsigned char)~forms[i].mask;
    for (size_t k = 1; k <= i + 1; k++) {
      if ((s[k] & 0xc0) != 0x80) return 0;
      code = code << 6 | (s[k] & 0x3f);
    }
    bool surrogate = code >= 0xd800 && code < 0xe000;
    return code >= forms[i].smallest && code < 0x110000 && !surrogate ? i + 2 : 0;
  }
  return 0;
}

const char *json_text(Ctx *c, const char *text) {
  Text t = {.ctx = c};
  text_add(&t, "\"");
  for (const char *s = text; *s;) {
    unsigned char ch = (unsigned char)*s;
    size_t n = ch < 128 ? 1 : utf8_length((const unsigned char *)s);
    if (ch == '"' || ch == '\\')
      text_add(&t, "\\%c", ch);
    else if (ch < 32)
      text_add(&t, "\\u%04x", ch);
    else if (n)
      text_write(&t, s, n);
    else
      text_add(&t, "\\ufffd");
    s += n ? n : 1;
  }
  text_add(&t, "\"");
  return t.text;
}

const char *json_number(Ctx *c, double x) { return isfinite(x) ? ctx_format(c, "%.9g", x) : "null"; }
