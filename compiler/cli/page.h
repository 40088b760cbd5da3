/* Pages that need nothing else: a file of compiler/cli/ with holes, and what fills them. */
#ifndef MOECC_CLI_PAGE_H
#define MOECC_CLI_PAGE_H

#include "compiler.h"

/* Names come from models and may hold anything: in HTML they are escaped, and in a script's JSON "<" is. */
void page_text(Text *t, const char *s);
void page_json(Text *t, const char *s); /* as a string with its quotes */

const char *time_text(Ctx *c, double us);     /* "1.250 ms" */
const char *bytes_text(Ctx *c, double bytes); /* "1.25 MB"; a kB are 1000 bytes */
const char *count_text(Ctx *c, int64_t n);    /* "1,234,567" */

/* The text of the embedded file with its holes, which look like @@NAME@@, filled: STYLE by what all pages share
 * (page.css), every other one by fill(self, t, name). */
const char *page_make(Ctx *c, const char *file, void (*fill)(void *self, Text *t, const char *hole), void *self);
void page_write(Ctx *c, const char *path, const char *page);

#endif
