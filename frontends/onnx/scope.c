/* Which layer a node came from.
 *
 * Exporters say it in one of three ways: the path in the node's name (TorchScript: "/blocks.3/mlp/fc1/MatMul"),
 * metadata of the node (dynamo: pkg.torch.onnx.name_scopes), or not at all, and then the names of the weights it reads
 * ("model.blocks.3.mlp.fc1.weight") do. All give one form: modules joined by slashes, a number joined to the list it
 * indexes by a dot, "blocks.3/mlp/fc1". Scopes only name things for people, so a doubtful one is better than none.
 */
#include "frontend.h"

#include <ctype.h>
#include <string.h>

static const char *metadata(const Onnx__NodeProto *n, const char *key) {
  for (size_t i = 0; i < n->n_metadata_props; i++) {
    const Onnx__StringStringEntryProto *e = n->metadata_props[i];
    if (e->key && e->value && strcmp(e->key, key) == 0) return e->value;
  }
  return NULL;
}

const char *scope_join(Ctx *c, const char *outer, const char *inner) {
  if (!*outer || !*inner) return *outer ? outer : inner;
  return ctx_format(c, "%s/%s", outer, inner);
}

/* "a.b.0.c" -> "a/b.0/c" */
const char *scope_from_dots(Ctx *c, const char *path) {
  char *s = ctx_strdup(c, path);
  for (char *p = s; *p; p++)
    if (*p == '.' && !isdigit((unsigned char)p[1])) *p = '/';
  return s;
}

/* The last but one of a list of strings as Python writes it: "['', 'blocks.0', 'blocks.0.norm', 'layer_norm']". */
static const char *from_name_scopes(Ctx *c, const char *list) {
  const char *found = "", *last = "";
  for (const char *p = strpbrk(list, "'\""); p; p = strpbrk(p, "'\"")) {
    char quote = *p++;
    const char *end = strchr(p, quote);
    if (!end) break;
    found = last;
    last = ctx_strndup(c, p, (size_t)(end - p));
    p = end + 1;
  }
  return scope_from_dots(c, found);
}

/* The last but one of ": Net/blocks.0: Block/blocks.0.norm: LayerNorm/layer_norm: aten.layer_norm.default". */
static const char *from_namespace(Ctx *c, const char *text) {
  const char *found = "", *last = "";
  for (const char *p = text; *p;) {
    size_t piece = strcspn(p, "/"), name = strcspn(p, ":/");
    while (name && p[name - 1] == ' ') name--;
    found = last;
    last = ctx_strndup(c, p, name);
    p += piece + (p[piece] == '/');
  }
  return scope_from_dots(c, found);
}

const char *scope_of(Ctx *c, const Onnx__NodeProto *n) {
  const char *list = metadata(n, "pkg.torch.onnx.name_scopes");
  if (list) return from_name_scopes(c, list);
  const char *space = metadata(n, "namespace");
  if (space && strchr(space, ':')) return from_namespace(c, space);
  const char *name = n->name ? n->name : "", *slash = strrchr(name, '/');
  if (!slash) return "";
  while (*name == '/' && name < slash) name++;
  return ctx_strndup(c, name, (size_t)(slash - name));
}

/* ---- from the names of weights ---- */

/* "model.blocks.3.mlp.fc1.weight" -> "model/blocks.3/mlp/fc1"; "" unless it has a module. */
static const char *module_of_weight(Ctx *c, const char *name) {
  const char *dot = strrchr(name, '.');
  if (!dot || dot == name || isdigit((unsigned char)dot[1]) || strchr(name, '/')) return "";
  return scope_from_dots(c, ctx_strndup(c, name, (size_t)(dot - name)));
}

/* Exporters join equal constants, such as the ones and zeros of untrained norms: a vector that several nodes read says
 * nothing. */
static const char *own_module(Ctx *c, const Node *n) {
  for (int i = 0; i < n->n_in; i++) {
    const Value *v = n->in[i];
    if (!v || !v->tensor || (v->n_uses > 1 && v->tensor->rank < 2)) continue;
    const char *m = module_of_weight(c, v->name);
    if (*m) return m;
  }
  return "";
}

/* The modules that both paths are in. */
static const char *common(Ctx *c, const char *a, const char *b) {
  size_t same = 0, n = 0;
  for (; a[n] && a[n] == b[n]; n++)
    if (a[n] == '/') same = n;
  if ((!a[n] || a[n] == '/') && (!b[n] || b[n] == '/')) same = n;
  return ctx_strndup(c, a, same);
}

static bool has_number(const char *path) {
  for (; *path; path++)
    if (path[0] == '.' && isdigit((unsigned char)path[1])) return true;
  return false;
}

/* The path up to its last numbered module: the block a layer is in. */
static const char *block_of(Ctx *c, const char *path) {
  size_t end = 0;
  bool numbered = false;
  for (size_t i = 0;; i++) {
    if (path[i] == '.' && isdigit((unsigned char)path[i + 1])) numbered = true;
    if (path[i] && path[i] != '/') continue;
    if (numbered) end = i;
    numbered = false;
    if (!path[i]) return ctx_strndup(c, path, end);
  }
}

/* A node between two layers belongs to what encloses both, or, where one block ends and another begins, to the first
 * unless it is a normalisation, with which blocks begin. */
static const char *between(Ctx *c, const Node *n, const char *before, const char *after) {
  if (!*before || !*after) return *before ? block_of(c, before) : "";
  const char *both = common(c, before, after);
  if (has_number(both)) return both;
  bool norm = n->op == OP_LAYER_NORMALIZATION || n->op == OP_RMS_NORMALIZATION;
  const char *block = norm && has_number(after) ? after : before;
  return has_number(block) ? block_of(c, block) : both;
}

void scope_fill(Graph *g) {
  Ctx *c = g->ctx;
  const char **after = ctx_array(c, (size_t)g->n_nodes + 1, sizeof *after), *next = "", *before = "";
  for (Node *n = g->last; n; n = n->prev) {
    after[n->id] = next;
    if (!*n->scope) n->scope = own_module(c, n);
    if (*n->scope) next = n->scope;
  }
  for (Node *n = g->first; n; n = n->next) {
    if (!*n->scope) n->scope = between(c, n, before, after[n->id]);
    if (*n->scope) before = n->scope;
  }
}
