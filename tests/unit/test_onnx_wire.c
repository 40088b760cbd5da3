/* The bytes of a model file: every way to be malformed is refused with an offset, before anything is unpacked. */
#include "onnx_bytes.h"

/* A model that has a bit of everything: strings, packed and unpacked numbers, nested messages. */
static Bytes good_model(void) {
  Bytes g = graph_xy(), n = node("ReduceSum", "/layer/sum", "x axes", "y");
  attr_int(&n, "keepdims", 0);
  put_message(&g, 1, n);
  put_message(&g, 5, int64_vector("axes", 2, (const int64_t[]){0, 2}));
  return model(g, 18);
}

static void good_model_is_read(void **state) {
  (void)state;
  Reading r = accepted(good_model());
  assert_int_equal(count_nodes(r.graph), 1);
  assert_string_equal(r.graph->first->scope, "layer");
  done(&r);
}

static void every_prefix_is_refused(void **state) {
  (void)state;
  Bytes whole = good_model();
  for (size_t n = 0; n < whole.n; n++) {
    Bytes part = {0};
    put(&part, whole.data, n);
    Reading r = read_bytes(part, NULL);
    assert_int_equal(r.status, EXIT_MODEL);
    assert_true(ctx_message_count(r.ctx) > 0);
    done(&r);
  }
  free(whole.data);
}

/* Whatever a flipped bit makes of it, it is either a model or an error. */
static void every_flipped_bit_is_survived(void **state) {
  (void)state;
  Bytes whole = good_model();
  size_t refusals = 0;
  for (size_t bit = 0; bit < 8 * whole.n; bit++) {
    Bytes copy = {0};
    put(&copy, whole.data, whole.n);
    copy.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    Reading r = read_bytes(copy, NULL);
    assert_true(r.status == EXIT_DONE || (r.status == EXIT_MODEL && ctx_message_count(r.ctx) > 0));
    refusals += r.status != EXIT_DONE;
    done(&r);
  }
  assert_true(refusals > 4 * whole.n); /* most bits matter */
  free(whole.data);
}

static Bytes bytes_of(const char *data, size_t n) {
  Bytes b = {0};
  put(&b, data, n);
  return b;
}
#define BYTES(text) bytes_of(text, sizeof text - 1)

static void malformed_bytes_are_refused_with_offset(void **state) {
  (void)state;
  refused((Bytes){0}, "is empty");
  refused(BYTES("\x08"), "at byte 1, in ModelProto: a varint is cut off");
  refused(BYTES("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x08\x80"),
          "at byte 12, in ModelProto: a varint is cut off");
  refused(BYTES("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"),
          "at byte 1, in ModelProto: a varint has more than 64 bits");
  refused(BYTES("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), "a varint has more than 64 bits");
  refused(BYTES("\x08\x08\x0b"), "at byte 2, in ModelProto: field 1 has the unknown wire type 3");
  refused(BYTES("\x0f"), "unknown wire type 7");
  refused(BYTES("\x02\x01x"), "field number 0");
  refused(BYTES("\x0d\x01\x02\x03\x04"), "field ir_version has wire type 5 instead of 0");
  refused(BYTES("\x08\x08\x3a\x7f"), "at byte 3, in ModelProto: message graph of 127 bytes reaches beyond the end");
  refused(BYTES("\x12\x05"
                "ab"),
          "a field of 5 bytes reaches beyond the end of its message, 2 bytes on");
  refused(BYTES("\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), "reaches beyond the end of its message");
  refused(BYTES("\x3a\x00\x3a\x00"), "at byte 3, in ModelProto: field graph is there twice");
  refused(BYTES("\x12\x03"
                "a\0b"),
          "the text of producer_name contains a NUL");
  refused(BYTES("not an ONNX file at all"), "is not a valid ONNX model: at byte");
}

/* An inner length may not reach beyond the message around it, even if the file goes on. */
static void lengths_are_held_against_the_message_around(void **state) {
  (void)state;
  Bytes m = {0};
  put_int(&m, 1, 8);
  put_bytes(&m, 7,
            "\x12\x10"
            "abc",
            5); /* graph { name of 16 bytes } in 5 bytes */
  put_text(&m, 2, "enough bytes behind it to read on");
  refused(m, "in GraphProto: a field of 16 bytes reaches beyond the end of its message, 3 bytes on");
}

static void packed_numbers_are_checked(void **state) {
  (void)state;
  Bytes t = tensor_head("w", ONNX_FLOAT, 1, (const int64_t[]){1}), g = graph_xy();
  put_bytes(&t, 4, "\0\0\0\0\0", 5);
  put_message(&g, 5, t);
  refused(model(g, 13), "packed numbers of 4 bytes each take 5 bytes");
  t = tensor_head("w", ONNX_INT64, 1, (const int64_t[]){1}), g = graph_xy();
  put_bytes(&t, 7, "\x80", 1);
  put_message(&g, 5, t);
  refused(model(g, 13), "in TensorProto: a varint is cut off");
}

/* Graphs in attributes in nodes in graphs: three messages a round. */
static Bytes nested(int rounds) {
  Bytes g = {0};
  for (int i = 0; i < rounds; i++) {
    Bytes a = attribute("g", 5), n = node("If", "n", "", ""), outer = {0};
    put_message(&a, 6, g);
    put_message(&n, 5, a);
    put_message(&outer, 1, n);
    g = outer;
  }
  return model(g, 13);
}

static void deep_nesting_is_refused(void **state) {
  (void)state;
  refused(nested(34), "messages are nested deeper than 100");
  refused(nested(5000), "messages are nested deeper than 100");
  refused(nested(32), "has no outputs"); /* within the limit: only the graph is at fault */
}

static void bombs_are_refused_before_unpacking(void **state) {
  (void)state;
  Bytes g = {0};
  for (int i = 0; i < 1000000; i++) put(&g, "\x0a", 2); /* a node of no bytes: 2 bytes here, hundreds unpacked */
  refused(model(g, 13), "so many fields that unpacking it would take more than");
}

static void unknown_fields_are_skipped(void **state) {
  (void)state;
  Bytes m = good_model();
  put_int(&m, 1000, 5);
  put_float(&m, 1001, 5);
  put_text(&m, 6, "documentation");
  put_text(&m, 26, "not a message, but nobody looks");
  Reading r = accepted(m);
  done(&r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(good_model_is_read),
      cmocka_unit_test(every_prefix_is_refused),
      cmocka_unit_test(every_flipped_bit_is_survived),
      cmocka_unit_test(malformed_bytes_are_refused_with_offset),
      cmocka_unit_test(lengths_are_held_against_the_message_around),
      cmocka_unit_test(packed_numbers_are_checked),
      cmocka_unit_test(deep_nesting_is_refused),
      cmocka_unit_test(bombs_are_refused_before_unpacking),
      cmocka_unit_test(unknown_fields_are_skipped),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
