/* Constants: every field elements may be in, external files, and what is refused about them. */
#include "onnx_bytes.h"

#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

/* A model whose output is the initializer, so that the test can look at it. */
static Bytes model_of_tensor(Bytes t) {
  Bytes g = graph_xy();
  put_message(&g, 5, t);
  put_message(&g, 1, node("Identity", "copy", "w", "y"));
  return model(g, 13);
}

static const Tensor *only_constant(const Reading *r) {
  for (size_t i = 0; i < r->graph->n_values; i++)
    if (r->graph->values[i]->tensor) return r->graph->values[i]->tensor;
  return NULL;
}

static void every_type_in_its_field(void **state) {
  (void)state;
  static const struct {
    int onnx;
    DType type;
    unsigned field; /* int32_data 5, int64_data 7, uint64_data 11 */
    int64_t first, second;
  } cases[] = {
      {ONNX_INT8, DT_I8, 5, -128, 127},
      {ONNX_UINT8, DT_U8, 5, 0, 255},
      {ONNX_INT16, DT_I16, 5, -32768, 32767},
      {ONNX_UINT16, DT_U16, 5, 0, 65535},
      {ONNX_INT32, DT_I32, 5, INT32_MIN, INT32_MAX},
      {ONNX_BOOL, DT_BOOL, 5, 1, 0},
      {ONNX_INT64, DT_I64, 7, INT64_MIN, INT64_MAX},
      {ONNX_UINT32, DT_U32, 11, 0, UINT32_MAX},
      {ONNX_UINT64, DT_U64, 11, 0, INT64_MAX},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    for (int packed = 0; packed < 2; packed++) {
      Bytes t = tensor_head("w", cases[i].onnx, 1, (const int64_t[]){2}), numbers = {0};
      put_raw_varint(&numbers, (uint64_t)cases[i].first);
      put_raw_varint(&numbers, (uint64_t)cases[i].second);
      if (packed)
        put_bytes(&t, cases[i].field, numbers.data, numbers.n);
      else {
        put_int(&t, cases[i].field, cases[i].first);
        put_int(&t, cases[i].field, cases[i].second);
      }
      free(numbers.data);
      Reading r = accepted(model_of_tensor(t));
      const Tensor *w = only_constant(&r);
      assert_int_equal(w->dtype, cases[i].type);
      assert_int_equal(tensor_integer(w, 0), cases[i].first);
      assert_int_equal(tensor_integer(w, 1), cases[i].second);
      done(&r);
    }
}

static void floats_packed_unpacked_raw(void **state) {
  (void)state;
  const float v[3] = {1.5f, -2, 1e30f};
  for (int form = 0; form < 4; form++) {
    Bytes t = tensor_head("w", ONNX_FLOAT, 2, (const int64_t[]){3, 1});
    if (form == 0) put_bytes(&t, 4, v, sizeof v);
    if (form == 1)
      for (int i = 0; i < 3; i++) put_float(&t, 4, v[i]);
    if (form == 2) put_bytes(&t, 9, v, sizeof v);
    if (form == 3) { /* in two packed runs */
      put_bytes(&t, 4, v, 4);
      put_bytes(&t, 4, v + 1, 8);
    }
    Reading r = accepted(model_of_tensor(t));
    const Tensor *w = only_constant(&r);
    assert_int_equal(w->rank, 2);
    assert_int_equal((uintptr_t)w->data % 4, 0);
    assert_memory_equal(w->data, v, sizeof v);
    done(&r);
  }
}

static void doubles_and_halves(void **state) {
  (void)state;
  const double v[1] = {0.1};
  Bytes t = tensor_head("w", ONNX_DOUBLE, 0, NULL);
  put_bytes(&t, 10, v, sizeof v);
  Reading r = accepted(model_of_tensor(t));
  assert_true(tensor_number(only_constant(&r), 0) == 0.1);
  done(&r);
  t = tensor_head("w", ONNX_FLOAT16, 0, NULL);
  put_int(&t, 5, 0x3e00);
  r = accepted(model_of_tensor(t));
  assert_true(tensor_number(only_constant(&r), 0) == 1.5);
  done(&r);
}

static void an_empty_tensor_needs_no_data(void **state) {
  (void)state;
  Reading r = accepted(model_of_tensor(tensor_head("w", ONNX_FLOAT, 2, (const int64_t[]){0, 7})));
  assert_int_equal(tensor_count(only_constant(&r)), 0);
  done(&r);
}

/* Data at every alignment comes out aligned. */
static void misaligned_data_is_aligned(void **state) {
  (void)state;
  for (size_t shift = 0; shift < 8; shift++) {
    const int64_t v[2] = {-5, 1ll << 40};
    Bytes t = tensor_head("w", ONNX_INT64, 1, (const int64_t[]){2});
    put_bytes(&t, 12, "documents", shift); /* a field that is skipped */
    put_bytes(&t, 9, v, sizeof v);
    Reading r = accepted(model_of_tensor(t));
    assert_int_equal((uintptr_t)only_constant(&r)->data % 8, 0);
    assert_int_equal(tensor_integer(only_constant(&r), 1), 1ll << 40);
    done(&r);
  }
}

static void tensor_refused(Bytes t, const char *part) { refused(model_of_tensor(t), part); }

static void sizes_must_agree(void **state) {
  (void)state;
  const float v[4] = {0};
  const int64_t two = 2, minus = -2, huge[3] = {1ll << 31, 1ll << 31, 1ll << 31}, nine[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
  tensor_refused(raw_tensor("w", ONNX_FLOAT, 1, &two, v, 7),
                 "initializer \"w\": raw_data has 7 bytes, but f32[2] takes 8");
  tensor_refused(raw_tensor("w", ONNX_FLOAT, 1, &two, v, 16), "raw_data has 16 bytes, but f32[2] takes 8");
  tensor_refused(tensor_head("w", ONNX_FLOAT, 1, &two), "f32[2] without data");
  tensor_refused(raw_tensor("w", ONNX_FLOAT, 1, &minus, v, 8), "dimension 0 is negative");
  tensor_refused(raw_tensor("w", ONNX_FLOAT, 3, huge, v, 8), "its size overflows");
  tensor_refused(raw_tensor("w", ONNX_FLOAT, 9, nine, v, 4), "has 9 dimensions; at most 8");
  Bytes t = tensor_head("w", ONNX_FLOAT, 1, &two);
  put_bytes(&t, 4, v, 12);
  tensor_refused(t, "float_data has at least 3 elements, but its shape is f32[2]");
  t = tensor_head("w", ONNX_INT64, 1, &two);
  put_int(&t, 7, 1);
  tensor_refused(t, "int64_data has 1 elements, but its shape is i64[2]");
}

static void data_must_be_in_the_one_right_field(void **state) {
  (void)state;
  const float v[2] = {0};
  const int64_t two = 2;
  Bytes t = raw_tensor("w", ONNX_FLOAT, 1, &two, v, 8);
  put_bytes(&t, 4, v, 8);
  tensor_refused(t, "has both raw_data and float_data");
  t = tensor_head("w", ONNX_INT64, 1, &two);
  put_bytes(&t, 4, v, 8);
  tensor_refused(t, "elements of int64 are in float_data, not in int64_data");
  t = tensor_head("w", ONNX_UINT8, 1, &two);
  put_int(&t, 5, 255);
  put_int(&t, 5, 256);
  tensor_refused(t, "element 1 is 256, not a value of uint8");
  tensor_refused(raw_tensor("w", ONNX_BOOL, 1, &two, "\1\2", 2), "bool element 1 is 2");
}

static void unsupported_types_are_named_when_used(void **state) {
  (void)state;
  const int64_t one = 1;
  tensor_refused(raw_tensor("w", 22, 1, &one, "x", 1), "initializer \"w\" has elements of int4");
  tensor_refused(raw_tensor("w", 17, 1, &one, "x", 1), "initializer \"w\" has elements of float8e4m3fn");
  tensor_refused(raw_tensor("w", 99, 1, &one, "x", 1), "initializer \"w\" has elements of the unknown type 99");
  Bytes t = tensor_head("w", ONNX_STRING, 1, &one), g = graph_xy();
  put_text(&t, 6, "text");
  put_message(&g, 5, t); /* not used: no fault */
  put_message(&g, 1, node("Relu", "r", "x", "y"));
  Reading r = accepted(model(g, 13));
  done(&r);
}

/* ---- external data, in a folder of its own ---- */

typedef struct {
  char folder[64];
} Folder;

static void write_file(const Folder *f, const char *name, const void *data, size_t n) {
  char path[128];
  snprintf(path, sizeof path, "%s/%s", f->folder, name);
  FILE *out = fopen(path, "wb");
  assert_non_null(out);
  assert_int_equal(fwrite(data, 1, n, out), n);
  fclose(out);
}

static int make_folder(void **state) {
  Folder *f = malloc(sizeof *f);
  snprintf(f->folder, sizeof f->folder, "/tmp/moecc-test-XXXXXX");
  *state = f;
  return mkdtemp(f->folder) ? 0 : -1;
}

static int remove_folder(void **state) {
  Folder *f = *state;
  char command[96];
  snprintf(command, sizeof command, "rm -r %s", f->folder);
  int result = system(command);
  free(f);
  return result;
}

static Bytes external(const char *location, const char *offset, const char *length) {
  Bytes t = tensor_head("w", ONNX_FLOAT, 1, (const int64_t[]){2});
  const char *pairs[3][2] = {{"location", location}, {"offset", offset}, {"length", length}};
  for (int i = 0; i < 3; i++) {
    if (!pairs[i][1]) continue;
    Bytes e = {0};
    put_text(&e, 1, pairs[i][0]);
    put_text(&e, 2, pairs[i][1]);
    put_message(&t, 13, e);
  }
  put_int(&t, 14, 1);
  return model_of_tensor(t);
}

static void external_refused(const Folder *f, Bytes b, const char *part) {
  Reading r = read_bytes(b, f->folder);
  if (r.status != EXIT_MODEL || !says(&r, part)) {
    print_message("wanted \"%s\" in:\n", part);
    print_messages(&r);
    fail();
  }
  done(&r);
}

static void external_data_is_read(void **state) {
  const Folder *f = *state;
  char sub[96];
  const float v[4] = {1, 2, 3, 4};
  write_file(f, "w.bin", v, sizeof v);
  snprintf(sub, sizeof sub, "%s/sub", f->folder);
  mkdir(sub, 0700);
  write_file(f, "sub/w.bin", v + 2, 8);
  Bytes models[4] = {external("w.bin", "8", "8"), external("w.bin", "8", NULL), external("./sub//w.bin", NULL, "8"),
                     external("sub/w.bin", "0", NULL)};
  for (int i = 0; i < 4; i++) {
    Reading r = read_bytes(models[i], f->folder);
    assert_int_equal(r.status, EXIT_DONE);
    assert_true(tensor_number(only_constant(&r), 1) == 4);
    done(&r);
  }
}

static void external_data_changes_the_hash(void **state) {
  const Folder *f = *state;
  uint64_t hash[2];
  for (int i = 0; i < 2; i++) {
    write_file(f, "h.bin", (const float[]){(float)i, 2}, 8);
    Reading r = read_bytes(external("h.bin", NULL, NULL), f->folder);
    assert_int_equal(r.status, EXIT_DONE);
    hash[i] = r.graph->model_hash;
    done(&r);
  }
  assert_true(hash[0] != hash[1]);
}

static void locations_outside_are_refused(void **state) {
  const Folder *f = *state;
  char path[128], target[128];
  write_file(f, "real.bin", "12345678", 8);
  snprintf(target, sizeof target, "%s/real.bin", f->folder);
  snprintf(path, sizeof path, "%s/link.bin", f->folder);
  assert_int_equal(symlink(target, path), 0);
  snprintf(path, sizeof path, "%s/linked", f->folder);
  assert_int_equal(symlink(f->folder, path), 0);
  external_refused(f, external("/etc/passwd", NULL, NULL), "is absolute");
  external_refused(f, external("../x", NULL, NULL), "leads out of its folder");
  external_refused(f, external("a/../../x", NULL, NULL), "leads out of its folder");
  external_refused(f, external("a\0b", NULL, NULL), "cannot be opened");
  external_refused(f, external("", NULL, NULL), "is empty");
  external_refused(f, external("link.bin", NULL, NULL), "goes through the symbolic link");
  external_refused(f, external("linked/real.bin", NULL, NULL), "goes through \"linked\", which is a link");
  external_refused(f, external("nothing", NULL, NULL), "cannot be opened: No such file");
  external_refused(f, external(".", NULL, NULL), "is a folder");
}

static void files_that_are_not_plain_are_refused(void **state) {
  const Folder *f = *state;
  char path[128], other[128];
  snprintf(path, sizeof path, "%s/pipe", f->folder);
  assert_int_equal(mkfifo(path, 0600), 0);
  external_refused(f, external("pipe", NULL, NULL), "is a FIFO, not a plain file");
  write_file(f, "one", "12345678", 8);
  snprintf(path, sizeof path, "%s/one", f->folder);
  snprintf(other, sizeof other, "%s/two", f->folder);
  assert_int_equal(link(path, other), 0);
  external_refused(f, external("one", NULL, NULL), "is a hard link");
  snprintf(path, sizeof path, "%s/folder", f->folder);
  mkdir(path, 0700);
  external_refused(f, external("folder", NULL, NULL), "is a folder, not a plain file");
  Folder dev = {"/dev"};
  external_refused(&dev, external("null", NULL, NULL), "is a device, not a plain file");
}

static void places_outside_the_file_are_refused(void **state) {
  const Folder *f = *state;
  write_file(f, "short.bin", "1234567890", 10);
  external_refused(f, external("short.bin", "4", NULL), "reaches past the end of \"short.bin\", which has 10");
  external_refused(f, external("short.bin", "11", NULL), "reaches past the end");
  external_refused(f, external("short.bin", "-8", NULL), "external offset -8 is negative");
  external_refused(f, external("short.bin", "9223372036854775807", NULL), "reaches past the end");
  external_refused(f, external("short.bin", "18446744073709551616", NULL), "overflows");
  external_refused(f, external("short.bin", "0x10", NULL), "is not a number");
  external_refused(f, external("short.bin", NULL, "4"), "external length is 4, but f32[2] takes 8 bytes");
  external_refused(f, external("short.bin", NULL, "-1"), "external length -1 is negative");
  external_refused(f, external(NULL, "0", NULL), "external_data has no location");
  refused(external("short.bin", NULL, NULL), "external data, but the model has no folder");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_type_in_its_field),
      cmocka_unit_test(floats_packed_unpacked_raw),
      cmocka_unit_test(doubles_and_halves),
      cmocka_unit_test(an_empty_tensor_needs_no_data),
      cmocka_unit_test(misaligned_data_is_aligned),
      cmocka_unit_test(sizes_must_agree),
      cmocka_unit_test(data_must_be_in_the_one_right_field),
      cmocka_unit_test(unsupported_types_are_named_when_used),
      cmocka_unit_test_setup_teardown(external_data_is_read, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(external_data_changes_the_hash, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(locations_outside_are_refused, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(files_that_are_not_plain_are_refused, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(places_outside_the_file_are_refused, make_folder, remove_folder),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
