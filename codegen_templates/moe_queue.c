/* Every expert's queue, by one counting sort: entry i goes to expert[i]; queue e is entries begin[e] ... begin[e + 1] -
 * 1 of token and weight, tokens ascending. expert, weight: tokens * k entries, token by token. begin: experts + 1.
 */
#include "defaults.h"
/* holes */
#define KERNEL moe_queue
/* end holes */

void KERNEL(const uint32_t *expert, const float *weight, uint32_t *begin, uint32_t *token, float *queued, size_t tokens,
            size_t experts, size_t k) {
  for (size_t e = 0; e <= experts; e++) begin[e] = 0;
  for (size_t i = 0; i < tokens * k; i++) begin[expert[i] + 1]++;
  for (size_t e = 0; e < experts; e++) begin[e + 1] += begin[e];
  for (size_t i = 0; i < tokens * k; i++) { /* begin[e] moves to the end of its queue */
    uint32_t at = begin[expert[i]]++;
    token[at] = (uint32_t)(i / k);
    queued[at] = weight[i];
  }
  for (size_t e = experts; e > 0; e--) begin[e] = begin[e - 1];
  begin[0] = 0;
}
