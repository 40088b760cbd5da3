/* Entry points: a model or a tensor from a file or from memory. */
#include "frontend.h"

#include <string.h>

/* Models are little endian and so are we: raw data is used as it is. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "a big-endian host needs raw data to be swapped");

static void check_dims(Ctx *c, const DimBinding *dims, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (dims[i].n < 1)
      ctx_fail_status(c, EXIT_USAGE, "--dim %s=%lld: a dimension is at least 1", dims[i].name, (long long)dims[i].n);
}

static void check_versions(Reader *r) {
  const Onnx__ModelProto *m = r->model;
  Ctx *c = r->ctx;
  if (!m->graph) ctx_fail(c, NULL, "is not an ONNX model: it has no graph");
  if (m->ir_version < IR_OLDEST || m->ir_version > IR_NEWEST)
    ctx_fail(c, NULL, "is of IR version %lld; %d to %d are supported", (long long)m->ir_version, IR_OLDEST, IR_NEWEST);
  if (!opset_check(r, m->opset_import, m->n_opset_import, "the model"))
    ctx_fail(c, NULL, "imports no operator set; ai.onnx %d to %d is supported", OPSET_OLDEST, OPSET_NEWEST);
  ctx_stop_on_errors(c);
}

static Graph *read_model(Ctx *c, Source source, size_t bytes, const DimBinding *dims, size_t n_dims) {
  check_dims(c, dims, n_dims);
  Reader r = {.ctx = c, .source = source, .dims = dims, .n_dims = n_dims};
  r.dim_used = ctx_array(c, n_dims + 1, sizeof *r.dim_used);
  r.model = (const Onnx__ModelProto *)wire_unpack(c, &onnx__model_proto__descriptor, source.data, bytes, "ONNX model");
  check_versions(&r);
  convert_model(&r);
  ctx_stop_on_errors(c);
  scope_fill(r.graph);
  r.graph->model_hash = source.mapped ? file_hash(source.data, bytes, r.source.external_hash)
                                      : hash_bytes(source.data, bytes, r.source.external_hash);
  for (FileMap *f = r.source.external; f; f = f->next) file_finish(c, f);
  return r.graph;
}

static const char *folder_of(Ctx *c, const char *path) {
  const char *slash = strrchr(path, '/');
  if (!slash) return ".";
  return slash == path ? "/" : ctx_strndup(c, path, (size_t)(slash - path));
}

Graph *onnx_read(Ctx *c, const char *path, const DimBinding *dims, size_t n_dims) {
  ctx_set_file(c, path);
  FileMap *file = file_map(c, path);
  Source s = {.ctx = c, .data = file->data, .folder = folder_of(c, path), .mapped = true};
  Graph *g = read_model(c, s, file->bytes, dims, n_dims);
  file_finish(c, file);
  return g;
}

Graph *onnx_read_memory(Ctx *c, const void *data, size_t bytes, const char *folder) {
  Source s = {.ctx = c, .data = data, .folder = folder};
  return read_model(c, s, bytes, NULL, 0);
}

Tensor *onnx_read_tensor(Ctx *c, const char *path, const char **name) {
  FileMap *file = file_map(c, path);
  Source s = {.ctx = c, .data = file->data, .folder = folder_of(c, path), .mapped = true};
  const Onnx__TensorProto *p = (const Onnx__TensorProto *)wire_unpack(c, &onnx__tensor_proto__descriptor, file->data,
                                                                      file->bytes, "ONNX tensor");
  const char *owner = ctx_format(c, "tensor %s", quoted(c, path)), *type = onnx_type_name(p->data_type);
  Tensor *t = tensor_load(&s, p, owner);
  if (!t && type) ctx_fail(c, NULL, "%s has elements of %s, a type that is not supported", owner, type);
  if (!t) ctx_fail(c, NULL, "%s has elements of the unknown type %d", owner, p->data_type);
  file_finish(c, file);
  for (FileMap *f = s.external; f; f = f->next) file_finish(c, f);
  if (name) *name = p->name ? p->name : "";
  return t;
}
