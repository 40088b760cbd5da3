/* What a folder needs to be built and run: the runtime, a driver, a Makefile and a CMakeLists.txt. */
#include "emit/embedded.h"
#include "emit/emit.h"
#include "emit/lines.h"

#include <string.h>

/* Copies an embedded file with every @HOLE@ filled; holes end with {0}. */
static void copy_filled(Emission *e, Folder *folder, const char *from, const char *to, const Hole *holes) {
  const EmbeddedFile *file = embedded_find(from);
  if (!file) ctx_fail(e->ctx, NULL, "internal error: no file %s", from);
  Text t = {.ctx = e->ctx};
  for (const char *p = file->text; *p;) {
    const Hole *hole = holes;
    size_t len = 0;
    for (; *p == '@' && hole && hole->name; hole++) {
      len = strlen(hole->name);
      if (strncmp(p + 1, hole->name, len) == 0 && p[len + 1] == '@') break;
    }
    if (*p == '@' && hole && hole->name) {
      text_add(&t, "%s", hole->value);
      p += len + 2;
      continue;
    }
    size_t plain = strcspn(p + 1, "@") + 1;
    text_write(&t, p, plain);
    p += plain;
  }
  Text lines = {.ctx = e->ctx};
  if (strcmp(from + strlen(from) - 2, ".c") == 0) lines_add(&lines, t.text);
  folder_text(folder, to, lines.text ? lines.text : t.text);
}

/* The vectors of the target; tcc has none. */
static void emit_simd(Emission *e, Folder *folder) {
  folder_text(
      folder, "moecc_simd.h",
      ctx_format(
          e->ctx,
          "/* moecc_simd.h: the vectors that this folder's kernels were made for; one float under tcc, which has none. "
          "*/\n"
          "#ifndef MOECC_SIMD_H\n#define MOECC_SIMD_H\n\n#ifdef __TINYC__\n#include \"moecc_simd_generic.h\"\n#else\n"
          "#include \"moecc_simd_%s.h\"\n#endif\n\n#endif\n",
          e->program->target->simd));
}

static void copy_runtime(Emission *e, Folder *folder) {
  const char *simd = ctx_format(e->ctx, "runtime/moecc_simd_%s.h", e->program->target->simd);
  for (size_t i = 0; i < n_embedded_files; i++) {
    const char *path = embedded_files[i].path;
    if (strncmp(path, "runtime/", 8) != 0) continue;
    bool other_simd = strncmp(path, "runtime/moecc_simd", 18) == 0 && strcmp(path, simd) != 0 &&
                      strcmp(path, "runtime/moecc_simd_generic.h") != 0;
    if (!other_simd) folder_text(folder, path + 8, embedded_files[i].text);
  }
  emit_simd(e, folder);
}

/* ---- the driver's table of tasks ---- */

static const char *npy_type(DType t) {
  static const char *const types[DT_COUNT] = {
      [DT_F32] = "f4", [DT_F64] = "f8", [DT_F16] = "f2", [DT_BF16] = "V2", [DT_I8] = "i1",
      [DT_U8] = "u1",  [DT_I16] = "i2", [DT_U16] = "u2", [DT_I32] = "i4",  [DT_U32] = "u4",
      [DT_I64] = "i8", [DT_U64] = "u8", [DT_BOOL] = "b1"};
  return types[t];
}

static void add_tensor(Emission *e, Text *t, const Port *p) {
  const Value *v = p->value;
  text_add(t, "\n    {\"%s\", \"%s\", {\"%s\", %d, {", c_string(e->ctx, v->name), p->file, npy_type(v->dtype),
           v->shape.rank);
  for (int i = 0; i < v->shape.rank; i++) text_add(t, "%s%lld", i ? ", " : "", (long long)v->shape.dim[i].n);
  text_add(t, v->shape.rank ? "}}}," : "0}}},");
}

/* The table of a task's inputs or outputs; returns how many. Its name ends with the task's number, which no name of the
 * interface does: those end with an identifier. */
static size_t add_tensors(Emission *e, Text *t, size_t task, bool output) {
  Text list = {.ctx = e->ctx};
  const Port *port = output ? e->output : e->input;
  size_t n = output ? e->n_outputs : e->n_inputs, taken = 0;
  for (size_t i = 0; i < n; i++)
    if (output ? port_from_task(e, &port[i], task) : port_of_task(e, &port[i], task)) {
      add_tensor(e, &list, &port[i]);
      taken++;
    }
  if (taken) text_add(t, "static const Tensor %s_%zu[] = {%s\n};\n", output ? "out" : "in", task, list.text);
  return taken;
}

static const char *driver_table(Emission *e) {
  Text t = {.ctx = e->ctx}, tasks = {.ctx = e->ctx};
  for (size_t i = 0; i < e->n_tasks + (e->n_tasks > 1); i++) {
    bool all = i == e->n_tasks;
    const char *id = all ? "all" : e->task[i].id;
    const char *condition =
        ctx_format(e->ctx, "#if !defined(%s_CHOOSE) || defined(%s_WITH_%s)\n", e->upper, e->upper, id);
    text_add(&t, "%s", condition);
    size_t n_in = add_tensors(e, &t, i, false), n_out = add_tensors(e, &t, i, true);
    text_add(&t, "static moecc_status call_%zu(Network *m, const void *const *in, void *const *out) {\n", i);
    if (!n_in) text_add(&t, "  (void)in;\n");
    text_add(&t, "  return %s_%s(m", e->name, id);
    for (size_t k = 0; k < n_in; k++) text_add(&t, ", in[%zu]", k);
    for (size_t k = 0; k < n_out; k++) text_add(&t, ", out[%zu]", k);
    text_add(&t, ");\n}\n#endif\n\n");
    text_add(&tasks, "%s    {\"%s\", %s_TASK%s%s, call_%zu, %s, %zu, %s, %zu},\n#endif\n", condition,
             all ? "all" : c_string(e->ctx, e->task[i].task->name), e->upper, all ? "S_ALL" : "_",
             all ? "" : e->task[i].upper, i, n_in ? ctx_format(e->ctx, "in_%zu", i) : "NULL", n_in,
             n_out ? ctx_format(e->ctx, "out_%zu", i) : "NULL", n_out);
  }
  text_add(&t, "static const Task tasks[] = {\n%s};", tasks.text);
  return t.text;
}

static const char *task_list(Emission *e, const char *separator) {
  Text t = {.ctx = e->ctx};
  for (size_t i = 0; i < e->n_tasks; i++) text_add(&t, "%s%s", i ? separator : "", e->task[i].id);
  if (e->n_tasks > 1) text_add(&t, "%sall", separator);
  return t.text;
}

static const char *with_semicolons(Ctx *c, const char *flags) {
  char *s = ctx_strdup(c, flags);
  for (char *p = s; *p; p++)
    if (*p == ' ') *p = ';';
  return s;
}

void emit_build_files(Emission *e, Folder *folder) {
  const Target *target = e->program->target;
  const char **in = port_file_names(e->ctx, e->program->graph->inputs, e->n_inputs);
  const char **out = port_file_names(e->ctx, e->program->graph->outputs, e->n_outputs);
  for (size_t i = 0; i < e->n_inputs; i++) e->input[i].file = in[i];
  for (size_t i = 0; i < e->n_outputs; i++) e->output[i].file = out[i];
  const Hole holes[] = {{"NAME", e->name},
                        {"UPPER", e->upper},
                        {"NEEDS_WEIGHTS", e->weights != WEIGHTS_EMBED && e->program->n_units ? "1" : "0"},
                        {"STREAMS", e->weights == WEIGHTS_STREAM ? "1" : "0"},
                        {"LOAD_DEFAULT", e->weights == WEIGHTS_STREAM ? "" : " (default)"},
                        {"STREAM_DEFAULT", e->weights == WEIGHTS_STREAM ? " (default)" : ""},
                        {"TABLE", driver_table(e)},
                        {"TASKS", task_list(e, " ")},
                        {"TASKS_LIST", task_list(e, ";")},
                        {"DRIVER", "1"},
                        {"CC", target->compiler},
                        {"CFLAGS", target->cflags},
                        {"CMAKE_CFLAGS", with_semicolons(e->ctx, target->cflags)},
                        {0}};
  copy_runtime(e, folder);
  copy_filled(e, folder, "codegen_templates/driver/main.c", ctx_format(e->ctx, "%s_main.c", e->name), holes);
  copy_filled(e, folder, "codegen_templates/driver/Makefile", "Makefile", holes);
  copy_filled(e, folder, "codegen_templates/driver/CMakeLists.txt", "CMakeLists.txt", holes);
}
