/* A font of dots, 3 wide and 6 high (the last row is for descenders), for captions. A glyph is one octal number: a
 * digit per row from the top, its bits 4, 2, 1 the dots from the left. */
#include "io/io.h"

static const uint32_t glyphs[] = {
    /*   ! " # $ % & ' */ 0000000, 0222020, 0550000, 0575750, 0276372, 0512450, 0252530, 0220000,
    /* ( ) * + , - . / */ 0122210, 0422240, 0527250, 0027200, 0000024, 0007000, 0000020, 0112440,
    /* 0 1 2 3 4 5 6 7 */ 0755570, 0262270, 0717470, 0713170, 0557110, 0747170, 0747570, 0712220,
    /* 8 9 : ; < = > ? */ 0757570, 0757170, 0020200, 0020024, 0124210, 0070700, 0421240, 0612020,
    /* @ A B C D E F G */ 0257430, 0257550, 0656560, 0344430, 0655560, 0746470, 0746440, 0345530,
    /* H I J K L M N O */ 0557550, 0722270, 0111520, 0556550, 0444470, 0577550, 0655550, 0255520,
    /* P Q R S T U V W */ 0656440, 0255521, 0656550, 0342160, 0722220, 0555570, 0555520, 0557750,
    /* X Y Z [ \ ] ^ _ */ 0552550, 0552220, 0712470, 0644460, 0442110, 0311130, 0250000, 0000070,
    /* ` a b c d e f g */ 0420000, 0035530, 0465560, 0034430, 0135530, 0035630, 0127220, 0035316,
    /* h i j k l m n o */ 0465550, 0202220, 0202224, 0456650, 0622270, 0077550, 0065550, 0025520,
    /* p q r s t u v w */ 0065564, 0035531, 0034440, 0036360, 0272210, 0055530, 0055520, 0055770,
    /* x y z { | } ~   */ 0052250, 0055316, 0073670, 0326230, 0222220, 0623260, 0003600,
};

static void dot(Picture *p, int x, int y, int size, Rgb colour) {
  for (int j = y < 0 ? 0 : y; j < y + size && j < p->height; j++)
    for (int i = x < 0 ? 0 : x; i < x + size && i < p->width; i++) {
      uint8_t *at = p->rgb + ((size_t)j * (size_t)p->width + (size_t)i) * 3;
      at[0] = colour.r, at[1] = colour.g, at[2] = colour.b;
    }
}

static void glyph(Picture *p, int x, int y, int size, Rgb colour, uint32_t g) {
  for (int row = 0; row < 6; row++)
    for (int column = 0; column < 3; column++)
      if (g >> ((5 - row) * 3 + 2 - column) & 1u) dot(p, x + column * size, y + row * size, size, colour);
}

void draw_text(Picture *p, int x, int y, int size, Rgb colour, const char *text) {
  for (; *text && x < p->width; text++, x += GLYPH_WIDTH * size) {
    unsigned char c = (unsigned char)*text;
    if (c >= 0x80 && c < 0xc0) { /* the rest of a character beyond ASCII */
      x -= GLYPH_WIDTH * size;
      continue;
    }
    glyph(p, x, y, size, colour, glyphs[(c < ' ' || c > '~' ? '?' : c) - ' ']);
  }
}
