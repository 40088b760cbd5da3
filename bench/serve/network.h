/* A network compiled with --name net, opened for all of its tasks; a table of calls is written for each. */
#include "net.h"
#include "ports.h"

extern net network;

/* NULL if all went well. */
static inline const char *outcome(moecc_status s) { return s == MOECC_OK ? NULL : moecc_status_text(s); }
