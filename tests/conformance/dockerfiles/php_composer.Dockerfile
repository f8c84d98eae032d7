FROM composer:2 AS vendor
WORKDIR /app
COPY composer.json composer.lock ./
RUN --mount=type=cache,target=/tmp/cache composer install --no-dev --no-scripts --prefer-dist
FROM php:8.4-fpm-alpine AS runtime
RUN apk add --no-cache --virtual .deps $PHPIZE_DEPS && docker-php-ext-install pdo_mysql opcache && apk del .deps
COPY --from=vendor /app/vendor /var/www/vendor
COPY --chown=www-data . /var/www
COPY --from=composer:2 /usr/bin/composer /usr/bin/composer
WORKDIR /var/www
