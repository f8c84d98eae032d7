FROM base
RUNN x
