/* The weights: N_weights.bin, and for embedding N_weights.c (one array for each unit), or, large, an N_weights.S that
 * includes pieces of the .bin. Units are packed one slot at a time. */
#include "emit/emit.h"
#include "emit/lines.h"

#include <string.h>

enum { LARGE = 4 << 20 }; /* bytes from which on text would be too much for a compiler */

static void fill_slot(void *self, size_t unit, uint32_t index, void *dst) {
  const Emission *e = self;
  const Unit *u = e->program->unit[unit];
  for (size_t i = 0; i < u->n_parts; i++)
    u->part[i].write(&u->part[i], (int64_t)index, (char *)dst + u->part[i].offset);
}

static bool to_folder(void *self, const void *data, size_t n) {
  folder_write(self, data, n);
  return true; /* folder_write leaves on failure */
}

static void write_pack(Emission *e, Folder *folder) {
  folder_file(folder, ctx_format(e->ctx, "%s_weights.bin", e->name));
  pack_write(e->ctx, e->pack, e->program->n_units, e->hash, fill_slot, e, to_folder, folder);
}

/* Bytes as lines of 64-bit words. */
typedef struct {
  Folder *folder;
  Text line;
  unsigned char word[8];
  size_t n;
} Words;

static bool to_words(void *self, const void *data, size_t n) {
  Words *w = self;
  const unsigned char *p = data;
  for (; n; n--, p++) {
    w->word[w->n++] = *p;
    if (w->n < 8) continue;
    uint64_t x;
    memcpy(&x, w->word, 8);
    text_add(&w->line, "%s0x%llxu,", w->line.len ? " " : "    ", (unsigned long long)x);
    w->n = 0;
    if (w->line.len < 100) continue;
    text_add(&w->line, "\n");
    folder_write(w->folder, w->line.text, w->line.len);
    w->line.len = 0;
  }
  return true;
}

static void write_arrays(Emission *e, Folder *folder) {
  Ctx *c = e->ctx;
  folder_file(folder, ctx_format(c, "%s_weights.c", e->name));
  Text t = {.ctx = c};
  line_comment(&t, 0,
               ctx_format(c,
                          "%s_weights.c: the weights, one array for each unit. Compile with -fdata-sections and link "
                          "with --gc-sections to keep only those of the tasks you call.",
                          e->name));
  text_add(&t, "#include <stdint.h>\n");
  folder_write(folder, t.text, t.len);
  for (size_t i = 0; i < e->program->n_units; i++) {
    Words w = {.folder = folder, .line = {.ctx = c}};
    const char *name = ctx_format(c, "%s_w_%s", e->name, e->program->unit[i]->name);
    char *head = ctx_format(c, "\nextern const uint64_t %s[];\n__attribute__((aligned(64))) const uint64_t %s[] = {\n",
                            name, name);
    folder_write(folder, head, strlen(head));
    pack_write_unit(c, e->pack, i, fill_slot, e, to_words, &w);
    text_add(&w.line, "\n};\n");
    folder_write(folder, w.line.text, w.line.len);
  }
}

static void write_assembly(Emission *e, Folder *folder) {
  Ctx *c = e->ctx;
  Text t = {.ctx = c};
  text_add(&t, "/* %s_weights.S: the weights, a section for each unit, from %s_weights.bin. */\n", e->name, e->name);
  for (size_t i = 0; i < e->program->n_units; i++) {
    const char *name = ctx_format(c, "%s_w_%s", e->name, e->program->unit[i]->name);
    text_add(
        &t,
        "\n  .section .rodata.%s,\"a\"\n  .balign %llu\n  .globl %s\n%s:\n  .incbin \"%s_weights.bin\", %llu, %llu\n",
        name, (unsigned long long)MOECC_SLOT_ALIGN(e->pack[i].bytes), name, name, e->name,
        (unsigned long long)e->pack[i].offset, (unsigned long long)pack_unit_bytes(&e->pack[i]));
  }
  text_add(&t, "\n  .section .note.GNU-stack,\"\"\n");
  folder_text(folder, ctx_format(c, "%s_weights.S", e->name), t.text);
}

void emit_weights(Emission *e, Folder *folder) {
  bool large = e->pack_bytes > LARGE;
  if (e->weights != WEIGHTS_EMBED || large) write_pack(e, folder);
  if (e->weights != WEIGHTS_EMBED) return;
  if (large)
    write_assembly(e, folder);
  else
    write_arrays(e, folder);
}
