/* The network's own name in C. It is the one identifier that stands alone in a header (the type of a context);
 * everything else begins with it. So it must be no function or type of the C library, whose headers may be included
 * beside, and no word of the driver.
 */
#include "emit/embedded.h"
#include "emit/names.h"

#include <ctype.h>
#include <string.h>

/* What <stdio.h>, <stdlib.h>, <string.h>, <math.h>, <time.h>, <ctype.h>, <signal.h>, <unistd.h> and <sys/stat.h>
 * declare. */
static const char library[] =
    " "
    "abort abs access acos acosh alarm alloca asctime asin asinh asprintf atan atan2 atanh atexit atof atoi atol "
    "basename bcmp bcopy bsearch bzero calloc cbrt ceil chdir chmod chown clearerr clock close confstr copysign cos "
    "cosh crypt ctermid ctime daemon daylight difftime dirname div dprintf drand48 drem dup dup2 ecvt environ "
    "erand48 erf erfc execl execv exit exp exp10 exp2 expm1 fabs fchmod fchown fclose fcvt fdim fdopen feof ferror "
    "fflush ffs fgetc fgetpos fgets fileno finite floor fma fmax fmin fmod fopen fork fprintf fputc fputs fread "
    "free freopen frexp fscanf fseek fseeko fsetpos fstat fsync ftell ftello ftruncate fwrite gamma gcvt getc "
    "getchar getcwd getdate getdelim getenv getline getopt getpid getuid getw gmtime hypot ilogb index ioctl "
    "isalnum isalpha isascii isatty isblank iscntrl isdigit isgraph isinf islower isnan isprint ispunct isspace "
    "isupper isxdigit j0 j1 jn jrand48 kill killpg labs lchown ldexp ldiv lgamma link llabs lldiv llrint llround "
    "localtime lockf log log10 log1p log2 logb lrand48 lrint lround lseek lstat malloc mblen mbstowcs mbtowc "
    "memccpy memchr memcmp memcpy memmem memmove mempcpy memset mkdir mkdtemp mkfifo mknod mkstemp mktemp mktime "
    "modf mrand48 nan nanosleep nearbyint nextafter nexttoward nice optarg opterr optind optopt pathconf pause "
    "pclose perror pipe popen pow pread printf psignal putc putchar putenv puts putw pwrite qsort quick_exit raise "
    "rand random read readlink realloc realpath remainder remove remquo rename rewind rindex rint rmdir round sbrk "
    "scalb scalbln scalbn scanf select setbuf setenv setjmp setpgid setsid setstate setuid setvbuf sigaction "
    "siginterrupt signal signgam significand sigpause sigset sigwait sin sincos sinh sleep snprintf sprintf sqrt "
    "srand srand48 srandom sscanf stat stime stpcpy strcat strchr strcmp strcoll strcpy strcspn strdup strerror "
    "strftime string strlen strncat strncmp strncpy strndup strpbrk strptime strrchr strsep strsignal strspn strstr "
    "strtod strtof strtok strtol strtold strtoll strtoul strtoull strxfrm swab symlink sync syscall sysconf system "
    "tan tanh tempnam tgamma time times timezone tmpfile tmpnam toascii tolower toupper trunc truncate ttyname "
    "tzname tzset ualarm uint ulong umask ungetc unlink unsetenv ushort usleep vdprintf vfork vfprintf vfscanf "
    "vprintf vscanf vsnprintf vsprintf vsscanf wait waitpid wcstombs wctomb write y0 y1 yn ";

static bool is_word(char c) { return isalnum((unsigned char)c) || c == '_'; }

static bool is_at(const char *text, const char *p, const char *name, size_t n) {
  return strncmp(p, name, n) == 0 && (p == text || !is_word(p[-1])) && !is_word(p[n]);
}

/* The end of a comment, a literal or a preprocessor line that begins at p; p itself where none does. */
static const char *skip_aside(const char *text, const char *p) {
  if (p[0] == '/' && p[1] == '*') {
    const char *end = strstr(p + 2, "*/");
    return end ? end + 2 : p + strlen(p);
  }
  if (*p == '#' && (p == text || p[-1] == '\n')) return p + strcspn(p, "\n");
  if (*p != '"' && *p != '\'') return p;
  const char *end = p + 1;
  while (*end && *end != *p) end += *end == '\\' && end[1] ? 2 : 1;
  return *end ? end + 1 : end;
}

/* Does the text of a C file say the identifier outside of functions, or as an enumerator? */
static bool declares(const char *text, const char *name) {
  size_t n = strlen(name);
  int depth = 0;
  bool is_enum = false;
  for (const char *p = text; *p;) {
    const char *behind = skip_aside(text, p);
    if (behind > p) {
      p = behind;
      continue;
    }
    if (!depth && is_at(text, p, "enum", 4)) is_enum = true;
    if (!depth && *p == ';') is_enum = false;
    depth += (*p == '{' && !is_enum) || *p == '(';
    depth -= (*p == '}' && !is_enum) || *p == ')';
    if (!depth && is_at(text, p, name, n)) return true;
    p++;
  }
  return false;
}

bool name_in_library(const char *name) {
  size_t n = strlen(name);
  for (const char *p = strstr(library, name); p; p = strstr(p + 1, name))
    if (is_at(library, p, name, n)) return true;
  return false;
}

const char *network_name(Ctx *c, const char *text) {
  const char *name = name_identifier(c, text);
  const EmbeddedFile *driver = embedded_find("codegen_templates/driver/main.c");
  return name_in_library(name) || (driver && declares(driver->text, name)) ? ctx_format(c, "%s_net", name) : name;
}
