/* moecc ops: the operator table, for people or as JSON. */
#include "cli/cli.h"

#include <string.h>

static void print_json(Op op, bool first) {
  const OpInfo *i = op_info(op);
  printf("%s  {\"op\": \"%s\", \"domain\": \"%s\", \"since\": %d, \"until\": %d, \"types\": \"%s\", \"doc\": \"%s\"}",
         first ? "" : ",\n", i->name, i->domain, i->since, i->until, i->types, i->doc);
}

void command_ops(Options *o) {
  bool first = true;
  if (o->json)
    printf("[\n");
  else
    printf("%-24s %-14s %-8s %s\n", "operator", "domain", "opsets", "types");
  for (int op = OP_NONE + 1; op < OP_COUNT; op++) {
    const OpInfo *i = op_info((Op)op);
    if (strcmp(i->domain, "moecc") == 0) continue; /* the compiler's own, not met in models */
    if (o->json)
      print_json((Op)op, first);
    else
      printf("%-24s %-14s %2d-%-5d %s\n", i->name, *i->domain ? i->domain : "ai.onnx", i->since, i->until, i->types);
    first = false;
  }
  if (o->json) printf("\n]\n");
}
