/* Finds the nearest point of a picture: the least that the network `vision`, compiled from ONNX with the build, needs
 * around it. The picture is a plain ramp of grey here; the network's weights are random, so the answer means nothing.
 */
#include <stdio.h>
#include <stdlib.h>

#include "vision.h"

enum { WIDTH = 256 };

static int report(const char *what, moecc_status status) {
  fprintf(stderr, "%s: %s\n", what, moecc_status_text(status));
  return EXIT_FAILURE;
}

int main(void) {
  static float image[VISION_IMAGE_LEN], depth[VISION_DEPTH_LEN];
  static _Alignas(MOECC_ALIGN) unsigned char arena[VISION_DEPTH_ARENA_BYTES(1)];
  for (size_t i = 0; i < VISION_IMAGE_LEN; i++) image[i] = (float)(i % WIDTH) / WIDTH;

  vision net = {0};
  moecc_status status = vision_init(&net, VISION_TASK_DEPTH, arena, sizeof arena, NULL, NULL);
  if (status != MOECC_OK) return report("init", status);
  status = vision_depth(&net, image, depth);
  if (status != MOECC_OK) return report("depth", status);
  vision_close(&net);

  size_t nearest = 0;
  for (size_t i = 1; i < VISION_DEPTH_LEN; i++)
    if (depth[i] < depth[nearest]) nearest = i;
  printf("nearest: %.3f m at column %zu, row %zu\n", (double)depth[nearest], nearest % WIDTH, nearest / WIDTH);
  return EXIT_SUCCESS;
}
